// The run along its time: attempts in their slots, or task by task with what each waited for; how
// many ran and how many waited; the lifetimes that were open.

const AXIS = 22;
const STRIP = 26;
const HEAD = AXIS + 2 * STRIP + 6;
const GUTTER = 34;
const LANE = 20;
const MOST_HEIGHT = 470;
const CLOSEST = 1e-5;
const COMPACT = new Intl.NumberFormat("en", { notation: "compact" });

class Timeline {
  constructor(model, open) {
    this.model = model;
    this.open = open;
    this.whole = Math.max(model.run.wall_time, 1e-6);
    this.from = 0;
    this.until = this.whole;
    this.mode = "slots";
    this.selected = null;
    this.focused = null;
    this.box = byId("timeline-box");
    this.canvas = byId("timeline-canvas");
    this.surface = new Surface(this.canvas, (...args) => this.paint(...args));
    this.strips = this.stripsOf();
    this.lanes = this.lanesOf();
    this.label();
    this.arrange();
    this.listen();
  }

  label() {
    const { model } = this;
    this.canvas.setAttribute("aria-label", `Timeline of ${plural(model.spans.length, "attempt")} in ${
      inSeconds(model.run.wall_time)}. The table of tasks has the same as text.`);
    const kinds = new Set(model.spans.map((span) => span.kind));
    const entries = ["completed", "failed", "cancelled", "running"]
      .filter((kind) => kinds.has(kind)).map((kind) => [kind, `attempt ${kind}`]);
    if (model.slot.some((seconds) => seconds > 0)) entries.push(["slot", "ready, waiting for a slot"]);
    if (model.resources.size) entries.push(["resource", "ready, waiting for a resource"]);
    if (model.backoff.some((seconds) => seconds > 0)) entries.push(["backoff", "backoff"]);
    if (model.opened.length) entries.push(["lifetime", "lifetime open"]);
    if (model.chain.length) entries.push(["chain", "set the wall time"]);
    byId("timeline-legend").replaceChildren(...legend(entries));
  }

  /** Steps of how many tasks ran, and of how many were ready and waited. */
  stripsOf() {
    const { model } = this;
    const running = [];
    for (const span of model.spans) running.push([span.start, 1], [span.end, -1]);
    const waiting = [];
    for (let task = 0; task < model.count; task += 1) {
      for (const gap of model.gaps(task)) {
        if (gap.kind !== "backoff") waiting.push([gap.start, 1], [gap.end, -1]);
      }
    }
    return [
      { name: "running", colour: "running", ...steps(running) },
      { name: "ready, waiting", colour: "slot", ...steps(waiting) },
    ];
  }

  /** The lifetimes in as few lanes as they need. */
  lanesOf() {
    const ends = [];
    const spans = this.model.opened.map((span) => ({ ...span }));
    spans.sort((one, other) => one.start - other.start);
    for (const span of spans) {
      let lane = ends.findIndex((end) => end <= span.start);
      if (lane < 0) lane = ends.length;
      ends[lane] = span.end;
      span.lane = lane;
    }
    return { count: ends.length, spans };
  }

  /** Give every attempt its row, and the canvas its height. */
  arrange() {
    const { model } = this;
    let count;
    if (this.mode === "slots") {
      count = model.spans.reduce((most, span) => Math.max(most, span.slot + 1), 0);
      this.rowOf = (span) => span.slot;
      this.rowHeight = clamp(Math.floor((MOST_HEIGHT - HEAD) / Math.max(count, 1)), 8, 26);
    } else {
      const shown = [];
      for (let task = 0; task < model.count; task += 1) {
        if (model.start[task] !== null || model.gaps(task).length) shown.push(task);
      }
      const moment = (task) => model.start[task] ?? model.ready(task);
      shown.sort((one, other) => moment(one) - moment(other) || one - other);
      const rows = new Map(shown.map((task, row) => [task, row]));
      count = shown.length;
      this.shownTasks = shown;
      this.rowOf = (span) => rows.get(span.task);
      this.rowHeight = 20;
    }
    this.rows = Array.from({ length: count }, () => []);
    for (const span of model.spans) this.rows[this.rowOf(span)].push(span);
    this.laneCount = this.mode === "slots" ? this.lanes.count : 0;
    const total = HEAD + count * this.rowHeight + (this.laneCount ? this.laneCount * LANE + 8 : 0) + 4;
    this.total = total;
    const height = Math.min(total, MOST_HEIGHT);
    byId("timeline-space").style.height = `${total}px`;
    this.box.style.height = `${height + 2}px`;
    this.box.scrollTop = 0;
    this.surface.setHeight(height);
    this.surface.redraw();
  }

  listen() {
    const press = (id, action) => byId(id).addEventListener("click", action);
    press("timeline-in", () => this.zoom(1.6));
    press("timeline-out", () => this.zoom(1 / 1.6));
    press("timeline-all", () => this.showAll());
    for (const [id, mode] of [["by-slot", "slots"], ["by-task", "tasks"]]) {
      press(id, () => {
        this.mode = mode;
        byId("by-slot").setAttribute("aria-pressed", mode === "slots");
        byId("by-task").setAttribute("aria-pressed", mode === "tasks");
        this.arrange();
      });
    }
    this.box.addEventListener("scroll", () => this.surface.redraw(), { passive: true });
    listenToPointer(this.canvas, {
      drag: (moved) => {
        this.pan((-moved.x * (this.until - this.from)) / this.breadth());
        this.box.scrollTop -= moved.y;
      },
      click: (at) => {
        const found = this.at(at);
        if (found) {
          this.focused = found.at === undefined ? null : found;
          this.open(found.task, this.canvas);
        }
      },
      hover: (at, event) => {
        const found = this.at(at);
        this.canvas.classList.toggle("over", Boolean(found));
        if (!found) hideTip();
        else showTip(event.clientX, event.clientY, this.model.name[found.task], this.linesOf(found));
      },
      leave: hideTip,
      zoom: (factor, at) => this.zoom(factor, this.momentAt(at.x)),
    });
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
    this.canvas.addEventListener("blur", hideTip);
  }

  linesOf(span) {
    const { model } = this;
    if (span.at === undefined) {
      return [`open from ${inSeconds(span.start)} to ${inSeconds(span.end)}: ${inSeconds(span.end - span.start)}`];
    }
    const which = `attempt ${span.attempt} of ${model.allowed[span.task]}, ${span.kind}`;
    const [, ...rest] = tipLines(model, span.task);
    return [
      `${which}: ${inSeconds(span.end - span.start)}, from ${inSeconds(span.start)} to ${inSeconds(span.end)}`,
      ...rest.slice(1),
    ];
  }

  breadth() {
    return Math.max(1, this.surface.width - GUTTER - 8);
  }

  x(moment) {
    return GUTTER + ((moment - this.from) / (this.until - this.from)) * this.breadth();
  }

  momentAt(x) {
    return this.from + ((x - GUTTER) / this.breadth()) * (this.until - this.from);
  }

  rowTop(row) {
    return HEAD + row * this.rowHeight - (this.surface.isOnPaper ? 0 : this.box.scrollTop);
  }

  /** The attempt, or the open lifetime, at a place of the canvas. */
  at({ x, y }) {
    if (y < HEAD) return null;
    const below = y - this.rowTop(0);
    const row = Math.floor(below / this.rowHeight);
    const width = (span) => Math.max(this.x(span.end), this.x(span.start) + 2);
    if (row < this.rows.length) {
      // The last that is hit was drawn last, on top.
      return this.rows[row].findLast((span) => this.x(span.start) - 1 <= x && x <= width(span) + 1) ?? null;
    }
    const lane = Math.floor((below - this.rows.length * this.rowHeight - 8) / LANE);
    if (!this.laneCount) return null;
    return this.lanes.spans.find((span) => span.lane === lane && this.x(span.start) <= x && x <= width(span)) ?? null;
  }

  zoom(factor, around = (this.from + this.until) / 2) {
    const length = clamp((this.until - this.from) / factor, Math.min(CLOSEST, this.whole), this.whole);
    const share = (around - this.from) / (this.until - this.from);
    this.from = around - share * length;
    this.until = this.from + length;
    this.pan(0);
  }

  pan(seconds) {
    const length = this.until - this.from;
    this.from = clamp(this.from + seconds, 0, this.whole - length);
    this.until = this.from + length;
    this.surface.redraw();
  }

  showAll() {
    this.from = 0;
    this.until = this.whole;
    this.surface.redraw();
  }

  /** Bring an attempt into view. */
  reveal(span) {
    const length = this.until - this.from;
    if (span.start < this.from || span.start > this.until) {
      this.from = clamp(span.start - length * 0.3, 0, this.whole - length);
      this.until = this.from + length;
    }
    const top = this.rowOf(span) * this.rowHeight;
    const room = this.surface.height - HEAD;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + this.rowHeight > this.box.scrollTop + room) this.box.scrollTop = top + this.rowHeight - room;
    this.surface.redraw();
  }

  select(task) {
    this.selected = task;
    const [first] = this.model.spansByTask.get(task) ?? [];
    if (first && document.activeElement !== this.canvas) {
      this.focused = first;
      this.reveal(first);
    }
    this.surface.redraw();
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { spans } = this.model;
    const now = this.focused ?? null;
    const keys = {
      "+": () => this.zoom(1.6, now?.start),
      "=": () => this.zoom(1.6, now?.start),
      "-": () => this.zoom(1 / 1.6, now?.start),
      0: () => this.showAll(),
      ArrowRight: () => this.focus(spans[now ? Math.min(now.at + 1, spans.length - 1) : 0]),
      ArrowLeft: () => this.focus(spans[now ? Math.max(now.at - 1, 0) : 0]),
      ArrowDown: () => this.focus(this.neighbour(now, 1)),
      ArrowUp: () => this.focus(this.neighbour(now, -1)),
      Home: () => this.focus(spans[0]),
      End: () => this.focus(spans.at(-1)),
      Enter: () => now && this.open(now.task, this.canvas),
    };
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  /** The attempt of a row below or above that is nearest in time. */
  neighbour(span, step) {
    if (!span) return this.model.spans[0];
    for (let row = this.rowOf(span) + step; row >= 0 && row < this.rows.length; row += step) {
      if (this.rows[row].length) {
        const far = (other) => Math.abs(other.start - span.start);
        return this.rows[row].reduce((best, other) => (far(other) < far(best) ? other : best));
      }
    }
    return span;
  }

  focus(span) {
    if (!span) return;
    this.focused = span;
    this.reveal(span);
    const name = this.model.name[span.task];
    const lines = this.linesOf(span);
    say(`${visible(name)}: ${lines.map(visible).join(", ")}`);
    const box = this.canvas.getBoundingClientRect();
    const y = box.top + this.rowTop(this.rowOf(span)) + this.rowHeight;
    showTip(box.left + Math.max(GUTTER, this.x(span.start)), y, name, lines);
  }

  drawForPaper() {
    this.kept = [this.from, this.until];
    this.from = 0;
    this.until = this.whole;
    this.surface.drawForPaper(Math.min(this.total, 1300));
  }

  backToScreen() {
    if (!this.surface.isOnPaper) return;
    [this.from, this.until] = this.kept;
    this.surface.backToScreen();
  }

  paint(context, width, height, colours) {
    const { model } = this;
    context.save();
    context.beginPath();
    context.rect(0, HEAD, width, height - HEAD);
    context.clip();
    context.textBaseline = "middle";
    this.paintRows(context, width, height, colours);
    this.eachTick((x) => {
      context.fillStyle = colours.line;
      context.fillRect(x, HEAD, 1, height - HEAD);
    });
    if (this.mode === "tasks") this.paintGaps(context, height, colours);
    else if (this.selected !== null) this.paintGapsOf(context, this.selected, colours);
    this.paintLanes(context, width, colours);
    this.paintChain(context, colours);
    this.paintSpans(context, height, colours);
    context.restore();
    this.paintHead(context, width, colours);
    const all = this.from <= 0 && this.until >= this.whole;
    byId("timeline-shown").textContent = all
      ? `${inSeconds(model.run.wall_time)}`
      : `${inSeconds(this.from)} \u2013 ${inSeconds(this.until)} of ${inSeconds(model.run.wall_time)}`;
  }

  visibleRows(height) {
    const first = Math.max(0, Math.floor((HEAD - this.rowTop(0)) / this.rowHeight));
    const last = Math.min(this.rows.length - 1, Math.ceil((height - this.rowTop(0)) / this.rowHeight));
    return [first, last];
  }

  paintRows(context, width, height, colours) {
    const [first, last] = this.visibleRows(height);
    context.font = `11px ${FONT}`;
    for (let row = first; row <= last; row += 1) {
      const top = this.rowTop(row);
      if (row % 2 === 0) {
        context.fillStyle = colours.row;
        context.fillRect(0, top, width, this.rowHeight);
      }
      if (this.mode === "slots" && (this.rowHeight >= 13 || row % 5 === 4)) {
        context.fillStyle = colours.muted;
        context.textAlign = "right";
        context.fillText(String(row + 1), GUTTER - 8, top + this.rowHeight / 2);
      }
    }
    context.textAlign = "left";
  }

  paintGaps(context, height, colours) {
    const [first, last] = this.visibleRows(height);
    for (let row = first; row <= last; row += 1) {
      this.paintGapsOf(context, this.shownTasks[row], colours, row);
    }
  }

  /** What a task waited for, as thin lines: in its own row, or in that of the attempt it led to. */
  paintGapsOf(context, task, colours, row = null) {
    const spans = this.model.spansByTask.get(task) ?? [];
    for (const gap of this.model.gaps(task)) {
      if (gap.end < this.from || gap.start > this.until) continue;
      const next = spans.find((span) => span.start >= gap.end - 1e-9) ?? spans.at(-1);
      const at = row ?? (next && this.rowOf(next));
      if (at === undefined) continue;
      const middle = this.rowTop(at) + this.rowHeight / 2;
      const left = Math.max(GUTTER, this.x(gap.start));
      const right = this.x(gap.end);
      context.fillStyle = colours[gap.kind];
      if (gap.kind === "backoff") {
        for (let x = left; x < Math.min(right, this.surface.width); x += 5) {
          context.fillRect(x, middle - 1.5, Math.min(3, right - x), 3);
        }
      } else {
        context.fillRect(left, middle - 1.5, Math.max(1, right - left), 3);
      }
    }
  }

  paintSpans(context, height, colours) {
    const { model } = this;
    const [first, last] = this.visibleRows(height);
    const thickness = Math.max(3, this.rowHeight - (this.rowHeight > 12 ? 6 : 2));
    context.font = `${this.rowHeight >= 18 ? 11 : 10}px ${FONT}`;
    for (let row = first; row <= last; row += 1) {
      const top = this.rowTop(row) + (this.rowHeight - thickness) / 2;
      let free = -1;
      for (const [place, span] of this.rows[row].entries()) {
        if (span.end < this.from || span.start > this.until) continue;
        const left = Math.max(this.x(span.start), GUTTER - 2);
        const right = Math.min(this.x(span.end), this.surface.width + 2);
        const breadth = Math.max(right - left, 1.5);
        const { isOnChain } = span;
        // Thousands on one pixel are one pixel.
        if (right < free && !isOnChain && span.kind === "completed") continue;
        context.fillStyle = colours[span.kind];
        if (breadth > 6) {
          context.beginPath();
          context.roundRect(left, top, breadth - 1, thickness, 3);
          context.fill();
        } else {
          context.fillRect(left, top, breadth > 3 ? breadth - 1 : breadth, thickness);
        }
        free = left + 1;
        if (isOnChain && breadth > 3) this.outline(context, left, top, breadth, thickness, colours.accent);
        if (span.task === this.selected || span === this.focusShown()) {
          this.outline(context, left - 2, top - 2, breadth + 4, thickness + 4, colours.focus);
        }
        if (this.rowHeight >= 13) this.paintLabel(context, span, place, { left, right, top: top + thickness / 2 }, colours);
      }
    }
  }

  focusShown() {
    return document.activeElement === this.canvas ? this.focused : null;
  }

  outline(context, left, top, width, height, colour) {
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.beginPath();
    context.roundRect(left + 1, top + 1, Math.max(1, width - 3), height - 2, 3);
    context.stroke();
  }

  paintLabel(context, span, place, { left, right, top }, colours) {
    const { model } = this;
    const isOneOfMany = this.mode === "slots" && model.attempts[span.task] > 1;
    const name = visible(model.name[span.task]) + (isOneOfMany ? ` #${span.attempt}` : "");
    let text = this.surface.fitted(name, right - left - 12);
    if (this.mode === "tasks" && text !== name) text = "";
    if (text) {
      context.fillStyle = colours["on-bar"];
      context.fillText(text, left + 6, top);
      return;
    }
    // Beside the bar, where its row has room for it: only one task is in it then.
    if (this.mode !== "tasks" || span !== model.spansByTask.get(span.task).at(-1)) return;
    const room = this.surface.width - right - 12;
    const [first] = this.rows[this.rowOf(span)];
    text = this.surface.fitted(name, Math.min(room, 260));
    if (text && room > 60) {
      context.fillStyle = colours.muted;
      context.fillText(text, right + 6, top);
    } else if (place >= 0 && this.x(first.start) > 100) {
      context.textAlign = "right";
      context.fillStyle = colours.muted;
      const before = model.gaps(span.task)[0]?.start ?? first.start;
      context.fillText(this.surface.fitted(name, 200), Math.min(this.x(before), this.x(first.start)) - 6, top);
      context.textAlign = "left";
    }
  }

  paintLanes(context, width, colours) {
    if (!this.laneCount) return;
    const top = this.rowTop(this.rows.length) + 6;
    context.fillStyle = colours.line;
    context.fillRect(0, top - 4, width, 1);
    context.font = `11px ${FONT}`;
    for (const span of this.lanes.spans) {
      if (span.end < this.from || span.start > this.until) continue;
      const left = Math.max(this.x(span.start), GUTTER - 2);
      const right = Math.min(this.x(span.end), this.surface.width + 2);
      const y = top + span.lane * LANE + 2;
      context.fillStyle = colours.lifetime;
      context.strokeStyle = colours["lifetime-line"];
      context.lineWidth = span.task === this.selected ? 2.5 : 1;
      context.beginPath();
      context.roundRect(left + 0.5, y + 0.5, Math.max(2, right - left - 1), LANE - 5, 3);
      context.fill();
      context.stroke();
      const name = `${visible(this.model.name[span.task])} is open`;
      context.fillStyle = colours.text;
      context.fillText(this.surface.fitted(name, right - left - 12), left + 6, y + (LANE - 4) / 2);
    }
  }

  /** Lines from each task of the chain to the one that it made room for. */
  paintChain(context, colours) {
    const { model } = this;
    context.strokeStyle = colours.accent;
    context.lineWidth = 1.5;
    context.beginPath();
    for (let at = 1; at < model.chain.length; at += 1) {
      const before = model.chain[at - 1].spans.at(-1);
      const [next] = model.chain[at].spans;
      if (!before || !next || next.start < this.from || before.end > this.until) continue;
      const half = this.rowHeight / 2;
      const x = [this.x(before.end), this.x(next.start)];
      const y = [this.rowTop(this.rowOf(before)) + half, this.rowTop(this.rowOf(next)) + half];
      if (y[0] === y[1]) continue;
      const middle = Math.max(x[0], x[1]);
      context.moveTo(x[0], y[0]);
      context.lineTo(middle, y[0]);
      context.lineTo(middle, y[1]);
      context.lineTo(x[1], y[1]);
    }
    context.stroke();
  }

  eachTick(draw) {
    const step = tickStep(((this.until - this.from) * 84) / this.breadth());
    const last = Math.floor(this.until / step + 1e-9);
    for (let at = Math.ceil(this.from / step - 1e-9); at <= last; at += 1) {
      draw(Math.round(this.x(at * step)), at * step, step);
    }
  }

  paintHead(context, width, colours) {
    context.fillStyle = colours.card;
    context.fillRect(0, 0, width, HEAD);
    context.font = `11px ${FONT}`;
    context.textBaseline = "middle";
    context.textAlign = "center";
    this.eachTick((x, moment, step) => {
      context.fillStyle = colours.line;
      context.fillRect(x, AXIS - 3, 1, HEAD - AXIS);
      context.fillStyle = colours.muted;
      if (x < width - 22) context.fillText(onAxis(moment, step), Math.max(x, 16), AXIS / 2);
    });
    context.textAlign = "left";
    this.strips.forEach((strip, place) => this.paintStrip(context, strip, AXIS + place * (STRIP + 2), colours));
    context.fillStyle = colours.line;
    context.fillRect(0, HEAD - 1, width, 1);
  }

  paintStrip(context, strip, top, colours) {
    const floor = top + STRIP;
    context.save();
    context.beginPath();
    context.rect(GUTTER, top, this.breadth() + 2, STRIP);
    context.clip();
    context.fillStyle = colours[strip.colour];
    context.globalAlpha = 0.55;
    context.beginPath();
    context.moveTo(this.x(this.from), floor);
    const scale = (STRIP - 4) / Math.max(strip.most, 1);
    let y = floor;
    for (let at = 0; at < strip.moments.length; at += 1) {
      const x = clamp(this.x(strip.moments[at]), GUTTER - 2, this.surface.width + 2);
      context.lineTo(x, y);
      y = floor - strip.counts[at] * scale;
      context.lineTo(x, y);
    }
    context.lineTo(this.surface.width + 2, y);
    context.lineTo(this.surface.width + 2, floor);
    context.fill();
    context.restore();
    context.fillStyle = colours.muted;
    context.font = `10px ${FONT}`;
    context.textAlign = "right";
    context.fillText(`\u2264\u2009${COMPACT.format(strip.most)}`, GUTTER - 6, floor - STRIP / 2 + 2);
    context.textAlign = "left";
    context.font = `11px ${FONT}`;
    context.lineJoin = "round";
    context.strokeStyle = colours.card;
    context.lineWidth = 3;
    context.strokeText(strip.name, GUTTER + 4, top + 9);
    context.fillStyle = colours.text;
    context.fillText(strip.name, GUTTER + 4, top + 9);
  }
}

/** Counts after each moment at which something changed, from pairs of a moment and a change. */
function steps(changes) {
  // What ends goes first, or one that follows another would seem to have run beside it.
  changes.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  const moments = [];
  const counts = [];
  let count = 0;
  let most = 0;
  for (const [moment, change] of changes) {
    count += change;
    if (moments.at(-1) === moment) counts[counts.length - 1] = count;
    else {
      moments.push(moment);
      counts.push(count);
    }
  }
  for (const each of counts) most = Math.max(most, each);
  return { moments, counts, most };
}

function legend(entries) {
  return entries.map(([kind, text]) => (
    element("li", {}, element("i", { class: `shade-${kind}` }), document.createTextNode(text))
  ));
}
