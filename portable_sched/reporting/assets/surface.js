// A canvas that fits its place, is as sharp as the screen, and takes its colours from the style.

const COLOUR_NAMES = [
  "card", "sunk", "line", "text", "muted", "accent", "focus", "completed", "failed", "skipped",
  "cancelled", "running", "pending", "dependencies", "slot", "resource", "backoff", "lifetime",
  "lifetime-line", "on-bar", "edge", "row",
];

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';

// Paper is drawn as wide as this and shrunk to fit.
const PAPER_WIDTH = 1100;

class Surface {
  /**
   * @param canvas where to draw; its height is what its style says.
   * @param paint called with a 2D context, width, height and colours, at most once a frame.
   */
  constructor(canvas, paint) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.paint = paint;
    this.height = 0;
    this.isOnPaper = false;
    this.isWaiting = false;
    this.colours = null;
    this.widths = new Map();
    new ResizeObserver(() => this.redraw()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.colours = null;
      this.redraw();
    });
  }

  get width() {
    return this.isOnPaper ? PAPER_WIDTH : this.canvas.clientWidth;
  }

  setHeight(height) {
    this.height = Math.round(height);
    this.canvas.style.height = `${this.height}px`;
  }

  redraw() {
    if (this.isWaiting || this.isOnPaper) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      this.draw();
    });
  }

  draw() {
    const width = this.width;
    if (!width || !this.height) return;
    const scale = this.isOnPaper ? 2 : Math.max(1, window.devicePixelRatio || 1);
    const pixels = [Math.round(width * scale), Math.round(this.height * scale)];
    if (this.canvas.width !== pixels[0]) this.canvas.width = pixels[0];
    if (this.canvas.height !== pixels[1]) this.canvas.height = pixels[1];
    this.colours ??= this.readColours();
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.context.fillStyle = this.colours.card;
    this.context.fillRect(0, 0, width, this.height);
    this.paint(this.context, width, this.height, this.colours);
  }

  /** Draw for paper: light, wide, of a height of its own. */
  drawForPaper(height) {
    this.isOnPaper = true;
    this.heightOnScreen = this.height;
    this.height = height;
    this.colours = null;
    this.draw();
  }

  backToScreen() {
    if (!this.isOnPaper) return;
    this.isOnPaper = false;
    this.height = this.heightOnScreen;
    this.colours = null;
    this.redraw();
  }

  readColours() {
    // Paper is light, whatever the screen is: this element has the light colours always.
    const source = this.isOnPaper ? byId("on-white") : document.documentElement;
    const style = getComputedStyle(source);
    return Object.fromEntries(
      COLOUR_NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]),
    );
  }

  /** The beginning of a text that fits a width, with an ellipsis where it is cut; or nothing. */
  fitted(text, width) {
    const context = this.context;
    if (width < 14) return "";
    const key = `${context.font}\0${text}`;
    let full = this.widths.get(key);
    if (full === undefined) {
      full = context.measureText(text.slice(0, 400)).width;
      if (this.widths.size > 20000) this.widths.clear();
      this.widths.set(key, full);
    }
    if (full <= width && text.length <= 400) return text;
    const fits = Math.floor((Math.min(text.length, 400) * (width - 8)) / full);
    if (fits < 2) return "";
    // Not between the halves of a character.
    return `${[...text.slice(0, fits)].join("").replace(/\p{Cs}$/u, "")}\u2026`;
  }
}

/** What the pointer does on a canvas: drag, click, hover, Ctrl and wheel, double click. */
function listenToPointer(canvas, { drag, click, hover, leave, zoom }) {
  let from = null;
  let hasMoved = false;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    from = place(event);
    hasMoved = false;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = place(event);
    if (from === null) {
      hover(at, event);
      return;
    }
    const moved = { x: at.x - from.x, y: at.y - from.y };
    if (!hasMoved && Math.hypot(moved.x, moved.y) < 4) return;
    hasMoved = true;
    leave();
    from = at;
    drag(moved);
  });
  const release = (event) => {
    if (from !== null && !hasMoved && event.type === "pointerup") click(place(event), event);
    from = null;
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => leave());
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      zoom(Math.exp(-clamp(event.deltaY, -100, 100) * 0.006), place(event));
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      drag({ x: -event.deltaX, y: 0 });
    }
  }, { passive: false });
}

/** Details beside the pointer. */
function showTip(x, y, title, lines) {
  const tip = byId("tip");
  tip.replaceChildren(
    element("b", { text: visible(title).slice(0, 200) }),
    ...lines.map((line) => element("span", { text: visible(line).slice(0, 300) })),
  );
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${clamp(x + 14, 4, Math.max(4, innerWidth - box.width - 4))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 18}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}

/** What is said of a task where the pointer, or the focus, is on it. */
function tipLines(model, task) {
  const lines = [KIND_NAMES[model.kinds[task]]];
  const duration = model.duration(task);
  if (duration !== null) {
    const attempts = model.attempts[task] > 1 ? `, ${model.attempts[task]} attempts` : "";
    lines.push(`${inSeconds(duration)} from ${inSeconds(model.start[task])} on${attempts}`);
  }
  const waits = model.waits(task).slice(0, 3);
  if (waits.length) {
    lines.push(`waited ${waits.map((part) => `${inSeconds(part.seconds)} for ${part.what}`).join(", ")}`);
  }
  const error = model.error(task);
  if (error) lines.push(error);
  return lines;
}
