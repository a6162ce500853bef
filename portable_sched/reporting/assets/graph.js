// The graph laid out: by dagre as long as that is quick, else level by level, as a crowd of squares.

// Network simplex is the best of dagre's rankers, and the first to become slow; see README.md.
const MOST_FOR_SIMPLEX = 250;
const MOST_FOR_DAGRE = 1000;
// A row of more boxes than this is a thread on the screen: squares can be folded.
const MOST_IN_A_LEVEL = 60;
const NODE_HEIGHT = 38;
const SQUARE = 14;
const MOST_GRAPH_HEIGHT = 640;

class GraphView {
  constructor(model, open) {
    this.model = model;
    this.open = open;
    this.selected = null;
    this.focused = null;
    this.box = byId("graph-box");
    this.canvas = byId("graph-canvas");
    this.surface = new Surface(this.canvas, (...args) => this.paint(...args));
    this.layout = null;
    this.scale = 1;
    this.left = 0;
    this.top = 0;
    this.isFitted = true;
    this.canvas.setAttribute("aria-label", `Graph of ${plural(model.count, "task")}. The details of a task list what it depends on.`);
    const kinds = new Set(model.kinds);
    const entries = Object.keys(KIND_NAMES).filter((kind) => kinds.has(kind))
      .map((kind) => [kind, KIND_NAMES[kind].toLowerCase().replace("failed, not", "not")]);
    if (model.chain.length) entries.push(["chain", "set the wall time"]);
    byId("graph-legend").replaceChildren(...legend(entries));
    this.surface.setHeight(220);
    // Not before somebody comes near: the page should be there first.
    const observer = new IntersectionObserver((entries_) => {
      if (entries_.some((entry) => entry.isIntersecting)) {
        observer.disconnect();
        setTimeout(() => this.lay(), 0);
      }
    }, { rootMargin: "300px" });
    observer.observe(this.box);
    this.listen();
  }

  /** Give every task its place, once. */
  lay() {
    if (this.layout) return;
    const { model } = this;
    const edges = model.dependencies.reduce((sum, needed) => sum + needed.length, 0);
    const broadest = levelsOf(model).reduce((most, tasks) => Math.max(most, tasks.length), 0);
    if (model.count <= MOST_FOR_DAGRE && edges <= 4 * MOST_FOR_DAGRE && broadest <= MOST_IN_A_LEVEL) {
      this.layout = layByDagre(model, this.isBetterDown(), (task) => this.breadthOf(task));
      byId("graph-shown").textContent = plural(model.count, "task");
    } else {
      this.layout = layByLevel(model, this.surface.width / 480);
      byId("graph-shown").textContent = `${plural(model.count, "task")}, level by level; click one to see its arrows`;
    }
    this.chainEdges = new Set();
    for (let at = 1; at < model.chain.length; at += 1) {
      this.chainEdges.add(`${model.chain[at - 1].task} ${model.chain[at].task}`);
    }
    const breadth = Math.min(1, this.surface.width / this.layout.width);
    this.surface.setHeight(clamp(this.layout.height * breadth + 20, 150, MOST_GRAPH_HEIGHT));
    this.fit();
    this.surface.redraw();
  }

  /** Whether the picture is larger when it goes down the page, by how deep and broad it is. */
  isBetterDown() {
    const levels = levelsOf(this.model);
    const broadest = levels.reduce((most, tasks) => Math.max(most, tasks.length), 1);
    const scale = (width, height) => Math.min(this.surface.width / width, MOST_GRAPH_HEIGHT / height, 1);
    const across = scale(levels.length * 190, broadest * (NODE_HEIGHT + 10));
    const down = scale(broadest * 150, levels.length * (NODE_HEIGHT + 34));
    return down > across * 1.1;
  }

  /** How broad a task is, so that its name and what is said under it have room. */
  breadthOf(task) {
    const { context } = this.surface;
    const measured = (font, text) => {
      context.font = `${font} ${FONT}`;
      return context.measureText(text.slice(0, 60)).width;
    };
    const name = measured("600 12px", visible(this.model.name[task]));
    return clamp(Math.max(name, measured("11px", this.underName(task))) + 30, 96, 190);
  }

  listen() {
    const press = (id, action) => byId(id).addEventListener("click", action);
    press("graph-in", () => this.zoom(1.5));
    press("graph-out", () => this.zoom(1 / 1.5));
    press("graph-all", () => this.fit());
    listenToPointer(this.canvas, {
      drag: (moved) => this.move(moved.x, moved.y),
      click: (at) => {
        const task = this.at(at);
        if (task !== null) {
          this.focused = task;
          this.open(task, this.canvas);
        }
      },
      hover: (at, event) => {
        const task = this.at(at);
        this.canvas.classList.toggle("over", task !== null);
        if (task === null) hideTip();
        else showTip(event.clientX, event.clientY, this.model.name[task], tipLines(this.model, task));
      },
      leave: hideTip,
      zoom: (factor, at) => this.zoom(factor, at),
    });
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
    this.canvas.addEventListener("focus", () => this.lay());
    this.canvas.addEventListener("blur", () => {
      hideTip();
      this.surface.redraw();
    });
    new ResizeObserver(() => {
      if (this.layout && this.isFitted && !this.surface.isOnPaper) this.fit();
    }).observe(this.box);
  }

  fit() {
    if (!this.layout) return;
    const { width, height } = this.layout;
    const scale = Math.min((this.surface.width - 16) / width, (this.surface.height - 16) / height);
    this.scale = Math.min(scale, 1.15);
    this.left = (this.surface.width - width * this.scale) / 2;
    this.top = (this.surface.height - height * this.scale) / 2;
    this.isFitted = true;
    this.surface.redraw();
  }

  zoom(factor, at = { x: this.surface.width / 2, y: this.surface.height / 2 }) {
    const scale = clamp(this.scale * factor, 0.01, 4);
    this.left = at.x - ((at.x - this.left) * scale) / this.scale;
    this.top = at.y - ((at.y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.isFitted = false;
    this.surface.redraw();
  }

  move(x, y) {
    this.left += x;
    this.top += y;
    this.isFitted = false;
    this.surface.redraw();
  }

  /** The task at a place of the canvas. */
  at({ x, y }) {
    if (!this.layout) return null;
    const at = { x: (x - this.left) / this.scale, y: (y - this.top) / this.scale };
    const found = this.layout.nodes.findIndex((node) => (
      Math.abs(at.x - node.x) <= node.width / 2 && Math.abs(at.y - node.y) <= node.height / 2
    ));
    return found < 0 ? null : found;
  }

  select(task) {
    this.selected = task;
    if (task !== null && document.activeElement !== this.canvas) {
      this.focused = task;
      this.reveal(task);
    }
    this.surface.redraw();
  }

  reveal(task) {
    if (!this.layout) return;
    const node = this.layout.nodes[task];
    const x = node.x * this.scale + this.left;
    const y = node.y * this.scale + this.top;
    if (x < 20 || x > this.surface.width - 20) this.left += this.surface.width / 2 - x;
    if (y < 20 || y > this.surface.height - 20) this.top += this.surface.height / 2 - y;
    this.surface.redraw();
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.layout || !this.model.count) return;
    const [back, forth, before, next] = this.layout.isDown
      ? ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]
      : ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];
    const now = this.focused;
    const keys = {
      [back]: () => this.focus(now === null ? 0 : this.nearest(this.model.waitsFor(now))),
      [forth]: () => this.focus(now === null ? 0 : this.nearest(this.model.comesBefore(now))),
      [before]: () => this.focus(now === null ? 0 : this.beside(-1)),
      [next]: () => this.focus(now === null ? 0 : this.beside(1)),
      "+": () => this.zoom(1.5),
      "=": () => this.zoom(1.5),
      "-": () => this.zoom(1 / 1.5),
      0: () => this.fit(),
      Home: () => this.focus(0),
      End: () => this.focus(this.model.count - 1),
      Enter: () => now !== null && this.open(now, this.canvas),
    };
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  across(task) {
    const node = this.layout.nodes[task];
    return this.layout.isDown ? [node.y, node.x] : [node.x, node.y];
  }

  nearest(tasks) {
    const [, place] = this.across(this.focused);
    const far = (task) => Math.abs(this.across(task)[1] - place);
    return tasks.reduce((best, task) => (best === null || far(task) < far(best) ? task : best), null);
  }

  /** The task beside the focused one, in the same rank of the picture. */
  beside(step) {
    const [rank, place] = this.across(this.focused);
    let best = null;
    for (let task = 0; task < this.model.count; task += 1) {
      const [otherRank, otherPlace] = this.across(task);
      const ahead = (otherPlace - place) * step;
      if (Math.abs(otherRank - rank) < SQUARE && ahead > 0.5) {
        if (best === null || ahead < (this.across(best)[1] - place) * step) best = task;
      }
    }
    return best;
  }

  focus(task) {
    if (task === null) return;
    this.focused = task;
    this.reveal(task);
    const lines = tipLines(this.model, task);
    const needs = this.model.waitsFor(task).length;
    say(`${visible(this.model.name[task])}: ${lines.map(visible).join(", ")}; waits for ${plural(needs, "task")}, ${
      plural(this.model.comesBefore(task).length, "task")} wait for it`);
    const box = this.canvas.getBoundingClientRect();
    const node = this.layout.nodes[task];
    showTip(box.left + node.x * this.scale + this.left, box.top + (node.y + node.height / 2) * this.scale + this.top, this.model.name[task], lines);
  }

  drawForPaper() {
    this.lay();
    this.kept = [this.scale, this.left, this.top, this.isFitted];
    this.surface.isOnPaper = true;
    const { width, height } = this.layout;
    this.scale = Math.min((this.surface.width - 16) / width, 1300 / height, 1.15);
    this.left = (this.surface.width - width * this.scale) / 2;
    this.top = 8;
    this.surface.drawForPaper(Math.max(60, height * this.scale + 16));
  }

  backToScreen() {
    if (!this.surface.isOnPaper) return;
    [this.scale, this.left, this.top, this.isFitted] = this.kept;
    this.surface.backToScreen();
  }

  paint(context, width, height, colours) {
    if (!this.layout) {
      context.fillStyle = colours.muted;
      context.font = `13px ${FONT}`;
      context.textBaseline = "middle";
      context.fillText(this.model.count ? "The graph is being laid out \u2026" : "No tasks.", 16, 24);
      return;
    }
    context.save();
    context.translate(this.left, this.top);
    context.scale(this.scale, this.scale);
    this.paintEdges(context, colours);
    const seen = {
      left: -this.left / this.scale,
      top: -this.top / this.scale,
      right: (width - this.left) / this.scale,
      bottom: (height - this.top) / this.scale,
    };
    const shown = this.focusShown();
    this.layout.nodes.forEach((node, task) => {
      if (node.x + node.width < seen.left || node.x - node.width > seen.right) return;
      if (node.y + node.height < seen.top || node.y - node.height > seen.bottom) return;
      if (this.layout.isCrowd) this.paintSquare(context, node, task, colours);
      else this.paintNode(context, node, task, colours);
      if (task === this.selected || task === shown) {
        context.strokeStyle = colours.focus;
        context.lineWidth = Math.max(2.5, 2 / this.scale);
        context.beginPath();
        context.roundRect(node.x - node.width / 2 - 3, node.y - node.height / 2 - 3, node.width + 6, node.height + 6, this.layout.isCrowd ? 2 : 9);
        context.stroke();
      }
    });
    context.restore();
  }

  focusShown() {
    return document.activeElement === this.canvas ? this.focused : null;
  }

  paintEdges(context, colours) {
    const near = this.selected ?? this.focusShown();
    const edges = this.layout.isCrowd ? this.crowdEdges(near) : this.layout.edges;
    const later = [];
    for (const edge of edges) {
      if (this.chainEdges.has(`${edge.from} ${edge.to}`)) later.push([edge, colours.accent, 2.5]);
      else if (edge.from === near || edge.to === near) later.push([edge, colours.focus, 2]);
      else this.paintEdge(context, edge, colours.edge, 1.2);
    }
    for (const [edge, colour, thickness] of later) this.paintEdge(context, edge, colour, thickness);
  }

  /** Of a crowd only the arrows of one task, and those of the chain. */
  crowdEdges(near) {
    const { nodes } = this.layout;
    const edges = [];
    const add = (from, to) => edges.push({ from, to, points: [nodes[from], nodes[to]] });
    if (near !== null) {
      for (const one of this.model.waitsFor(near)) add(one, near);
      for (const one of this.model.comesBefore(near)) add(near, one);
    }
    const { chain } = this.model;
    for (let at = 1; at < chain.length; at += 1) {
      if (chain[at].reason === "dependency") add(chain[at - 1].task, chain[at].task);
    }
    return edges;
  }

  paintEdge(context, { points, isAfter }, colour, thickness) {
    context.strokeStyle = colour;
    context.lineWidth = this.layout.isCrowd ? Math.max(thickness, thickness / this.scale / 2) : thickness;
    context.setLineDash(isAfter ? [5, 4] : []);
    context.beginPath();
    context.moveTo(points[0].x, points[0].y);
    for (let at = 1; at < points.length - 1; at += 1) {
      const [here, next] = [points[at], points[at + 1]];
      const isLast = at === points.length - 2;
      const end = isLast ? next : { x: (here.x + next.x) / 2, y: (here.y + next.y) / 2 };
      context.quadraticCurveTo(here.x, here.y, end.x, end.y);
    }
    if (points.length === 2) context.lineTo(points[1].x, points[1].y);
    context.stroke();
    context.setLineDash([]);
    const [before, tip] = points.slice(-2);
    const angle = Math.atan2(tip.y - before.y, tip.x - before.x);
    const size = this.layout.isCrowd ? 4 / Math.max(this.scale, 0.3) : 7;
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(tip.x, tip.y);
    context.lineTo(tip.x - size * Math.cos(angle - 0.45), tip.y - size * Math.sin(angle - 0.45));
    context.lineTo(tip.x - size * Math.cos(angle + 0.45), tip.y - size * Math.sin(angle + 0.45));
    context.fill();
  }

  paintSquare(context, node, task, colours) {
    context.fillStyle = colours[this.model.kinds[task]];
    context.fillRect(node.x - node.width / 2, node.y - node.height / 2, node.width, node.height);
    if (this.model.chainPlace.has(task)) {
      context.strokeStyle = colours.accent;
      context.lineWidth = Math.max(2.5, 1.5 / this.scale);
      context.strokeRect(node.x - node.width / 2, node.y - node.height / 2, node.width, node.height);
    }
  }

  paintNode(context, node, task, colours) {
    const { model } = this;
    const left = node.x - node.width / 2;
    const top = node.y - node.height / 2;
    const kind = model.kinds[task];
    const isOnChain = model.chainPlace.has(task);
    context.fillStyle = this.scale < 0.3 ? colours[kind] : colours.card;
    context.strokeStyle = isOnChain ? colours.accent : colours.edge;
    context.lineWidth = isOnChain ? 2.5 : 1;
    context.beginPath();
    context.roundRect(left, top, node.width, node.height, 7);
    context.fill();
    context.stroke();
    if (this.scale < 0.3) return;
    context.fillStyle = colours[kind];
    context.beginPath();
    context.roundRect(left + 5, top + 6, 5, node.height - 12, 2.5);
    context.fill();
    context.textBaseline = "middle";
    context.fillStyle = colours.text;
    context.font = `600 12px ${FONT}`;
    context.fillText(this.surface.fitted(visible(model.name[task]), node.width - 24), left + 16, top + 13);
    context.fillStyle = colours.muted;
    context.font = `11px ${FONT}`;
    context.fillText(this.surface.fitted(this.underName(task), node.width - 22), left + 16, top + 26);
  }

  underName(task) {
    const { model } = this;
    const duration = model.duration(task);
    if (duration === null) return model.kinds[task] === "pending" ? "pending" : "not started";
    const attempts = model.attempts[task] > 1 ? ` \u00b7 ${model.attempts[task]} attempts` : "";
    const kind = model.kinds[task] === "completed" ? "" : ` \u00b7 ${model.kinds[task]}`;
    return `${inSeconds(duration)}${kind}${attempts}`;
  }
}

/** Places and arrows by dagre, left to right, or top down on a narrow page. */
function layByDagre(model, isDown, breadthOf) {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({
    rankdir: isDown ? "TB" : "LR",
    ranker: model.count <= MOST_FOR_SIMPLEX ? "network-simplex" : "tight-tree",
    nodesep: 10,
    edgesep: 8,
    ranksep: isDown ? 34 : 46,
    marginx: 8,
    marginy: 8,
  });
  graph.setDefaultEdgeLabel(() => ({}));
  for (let task = 0; task < model.count; task += 1) {
    graph.setNode(String(task), { width: breadthOf(task), height: NODE_HEIGHT });
  }
  for (let task = 0; task < model.count; task += 1) {
    for (const earlier of model.waitsFor(task)) graph.setEdge(String(earlier), String(task));
  }
  dagre.layout(graph);
  const { width, height } = graph.graph();
  const nodes = Array.from({ length: model.count }, (_, task) => {
    const node = graph.node(String(task));
    return { x: node.x, y: node.y, width: node.width, height: node.height };
  });
  const edges = graph.edges().map(({ v, w }) => {
    const [from, to] = [Number(v), Number(w)];
    const isAfter = !model.dependencies[to].includes(from);
    return { from, to, isAfter, points: graph.edge(v, w).points };
  });
  return { nodes, edges, isDown, isCrowd: false, width: Math.max(width || 0, 60), height: Math.max(height || 0, 40) };
}

/** The tasks by level: one above the highest of what a task waits for. They come sorted. */
function levelsOf(model) {
  const level = new Array(model.count).fill(0);
  const levels = [];
  for (let task = 0; task < model.count; task += 1) {
    for (const earlier of model.waitsFor(task)) level[task] = Math.max(level[task], level[earlier] + 1);
    (levels[level[task]] ??= []).push(task);
  }
  return levels;
}

/** Places level by level: each is a block of squares, and the blocks stand in lines like words. */
function layByLevel(model, shape) {
  const levels = levelsOf(model);
  const step = SQUARE + 4;
  const gap = 12;
  // As high as wide blocks need, and as deep graphs need to keep the shape of the page.
  const area = model.count * step * step + levels.length * gap * step;
  const lineHeight = Math.max(step, Math.min(
    levels.reduce((most, tasks) => Math.max(most, tasks.length), 1) * step,
    Math.ceil(Math.sqrt(area / shape) / step) * step,
  ));
  const perColumn = Math.max(1, Math.floor(lineHeight / step));
  const breadthOf = (tasks) => Math.ceil(tasks.length / perColumn) * step + gap;
  const breadth = levels.reduce((sum, tasks) => sum + breadthOf(tasks), 0);
  const lineBreadth = Math.max(
    Math.sqrt(breadth * (lineHeight + gap) * shape),
    levels.reduce((most, tasks) => Math.max(most, breadthOf(tasks)), step),
  );
  const nodes = new Array(model.count);
  let [left, top, most] = [0, 0, 0];
  for (const tasks of levels) {
    const wide = breadthOf(tasks);
    if (left > 0 && left + wide > lineBreadth) [left, top] = [0, top + lineHeight + 2 * gap];
    tasks.forEach((task, at) => {
      const x = left + Math.floor(at / perColumn) * step + step / 2;
      const y = top + (at % perColumn) * step + step / 2;
      nodes[task] = { x, y, width: SQUARE, height: SQUARE };
    });
    left += wide;
    most = Math.max(most, left);
  }
  return { nodes, edges: [], isDown: false, isCrowd: true, width: most, height: top + lineHeight };
}
