// The table: sorted, searched, filtered, and only as many rows in the page as can be seen.

const ROW_HEIGHT = 35;
const ROWS_AROUND = 12;
const MOST_ON_PAPER = 1000;

class Table {
  constructor(model, open) {
    this.model = model;
    this.open = open;
    this.grid = byId("grid");
    this.body = byId("grid-body");
    this.statuses = new Set();
    this.words = [];
    this.sortedBy = null;
    this.isDescending = false;
    this.active = 0;
    this.selected = null;
    this.columns = this.columnsOf();
    this.texts = null;
    this.heads();
    this.filters();
    this.listen();
    this.apply();
  }

  columnsOf() {
    const { model } = this;
    const order = ["failed", "skipped", "cancelled", "running", "pending", "completed"];
    const time = (seconds) => (seconds === null ? "" : inSeconds(seconds));
    const byNumber = (one, other) => one - other;
    const column = (name, title, key, show, more = {}) => ({ name, title, key, show, ...more });
    const waited = model.name.map((_, task) => model.keptWaiting(task));
    return [
      column("name", "Task", (task) => model.name[task], (task) => nameElement(model.name[task]), {
        compare: new Intl.Collator("en", { numeric: true }).compare,
      }),
      column("status", "Status", (task) => order.indexOf(model.kinds[task]), (task) => badge(model.kinds[task]), { compare: byNumber }),
      column("attempts", "Attempts", (task) => model.attempts[task], (task) => `${model.attempts[task]} of ${model.allowed[task]}`, { compare: byNumber, isNumber: true }),
      column("duration", "Duration", (task) => model.duration(task), (task) => time(model.duration(task)), { compare: byNumber, isNumber: true }),
      column("start", "Started", (task) => model.start[task], (task) => time(model.start[task]), { compare: byNumber, isNumber: true }),
      column("waited", "Waited", (task) => waited[task], (task) => time(waited[task] || null), {
        compare: byNumber, isNumber: true, about: "Ready, and waiting for a slot, a resource or the end of a backoff",
      }),
      column("for", "Waited for", (task) => model.waits(task)[0]?.what ?? null, (task) => waitText(model, task), {
        compare: (one, other) => (one < other ? -1 : Number(one > other)),
      }),
      column("slack", "Slack", (task) => model.slack[task], (task) => time(model.slack[task]), { compare: byNumber, isNumber: true }),
      column("error", "Error", (task) => model.error(task) || null, (task) => visible(model.error(task).slice(0, 400)), {
        compare: (one, other) => (one < other ? -1 : Number(one > other)),
      }),
    ];
  }

  heads() {
    byId("grid-head").replaceChildren(...this.columns.map((column, at) => {
      const button = element("button", { type: "button", text: column.title, title: column.about, onclick: () => this.sort(column) });
      const shape = `c-${column.name}${column.isNumber ? " number" : ""}`;
      column.head = element("th", {
        class: shape, role: "columnheader", scope: "col", "aria-sort": "none", "aria-colindex": at + 1,
      }, button);
      return column.head;
    }));
    this.grid.setAttribute("aria-colcount", this.columns.length);
  }

  filters() {
    const { model } = this;
    const present = Object.keys(KIND_NAMES).filter((kind) => kind !== "skipped");
    const counts = new Map();
    model.status.forEach((code) => counts.set(code, (counts.get(code) ?? 0) + 1));
    this.buttons = new Map();
    for (const kind of present) {
      const status = kind.toUpperCase();
      const count = counts.get(model.statusNames.indexOf(status)) ?? 0;
      if (!count) continue;
      this.buttons.set(status, element("button", {
        type: "button", "aria-pressed": "false", onclick: () => this.toggle(status),
      }, element("span", { class: `badge ${kind}`, text: `${status} ${count.toLocaleString("en")}` })));
    }
    byId("filters").replaceChildren(...this.buttons.values());
  }

  listen() {
    const search = byId("search");
    search.addEventListener("input", () => {
      this.words = search.value.toLowerCase().split(/\s+/u).filter(Boolean);
      this.apply();
    });
    search.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowDown" && event.key !== "Enter") return;
      event.preventDefault();
      this.grid.focus();
    });
    this.grid.addEventListener("scroll", () => this.render(), { passive: true });
    this.grid.addEventListener("keydown", (event) => this.onKey(event));
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-place]");
      if (!row) return;
      this.active = Number(row.dataset.place);
      this.open(this.rows[this.active], this.grid);
    });
    new ResizeObserver(() => this.render()).observe(this.grid);
  }

  toggle(status) {
    if (this.statuses.has(status)) this.statuses.delete(status);
    else this.statuses.add(status);
    this.apply();
  }

  /** Show the tasks of one status alone. */
  only(status) {
    this.statuses = new Set(status ? [status] : []);
    byId("search").value = "";
    this.words = [];
    this.apply();
  }

  sort(column) {
    if (this.sortedBy !== column) {
      this.sortedBy = column;
      // What people look for in numbers is the largest.
      this.isDescending = Boolean(column.isNumber) && column.name !== "start";
    } else if (this.isDescending !== (Boolean(column.isNumber) && column.name !== "start")) {
      this.sortedBy = null;
    } else {
      this.isDescending = !this.isDescending;
    }
    this.apply();
  }

  apply() {
    const { model } = this;
    const rows = [];
    for (let task = 0; task < model.count; task += 1) {
      const isWanted = !this.statuses.size || this.statuses.has(model.statusNames[model.status[task]]);
      if (isWanted && this.matches(task)) rows.push(task);
    }
    this.rows = this.sortedBy ? this.sorted(rows, this.sortedBy) : rows;
    for (const column of this.columns) {
      const direction = this.isDescending ? "descending" : "ascending";
      column.head.setAttribute("aria-sort", column === this.sortedBy ? direction : "none");
    }
    for (const [status, button] of this.buttons) {
      button.setAttribute("aria-pressed", this.statuses.has(status));
    }
    byId("found").textContent = rows.length === model.count
      ? plural(model.count, "task")
      : `${rows.length.toLocaleString("en")} of ${plural(model.count, "task")}`;
    this.grid.setAttribute("aria-rowcount", rows.length + 1);
    this.active = Math.max(0, this.rows.indexOf(this.selected));
    this.shown = "";
    if (this.active === 0) this.grid.scrollTop = 0;
    this.render();
    if (this.active) this.reveal();
  }

  matches(task) {
    if (!this.words.length) return true;
    this.texts ??= this.model.name.map((name, each) => `${name}\n${this.model.error(each)}`.toLowerCase());
    return this.words.every((word) => this.texts[task].includes(word));
  }

  sorted(rows, { key, compare }) {
    const keyed = rows.map((task) => [key(task), task]);
    const sign = this.isDescending ? -1 : 1;
    // What is unknown stands last, whichever way the rest goes.
    keyed.sort(([one, first], [other, second]) => {
      if (one === null || other === null) return (one === null) - (other === null) || first - second;
      return sign * compare(one, other) || first - second;
    });
    return keyed.map(([, task]) => task);
  }

  render() {
    if (this.isOnPaper) return;
    const room = this.grid.clientHeight || 600;
    const first = Math.max(0, Math.floor(this.grid.scrollTop / ROW_HEIGHT) - ROWS_AROUND);
    const last = Math.min(this.rows.length, Math.ceil((this.grid.scrollTop + room) / ROW_HEIGHT) + ROWS_AROUND);
    const shown = `${first} ${last}`;
    if (shown === this.shown) return;
    this.shown = shown;
    this.fill(first, last);
  }

  fill(first, last) {
    const rows = [];
    if (first > 0) rows.push(this.space(first));
    for (let place = first; place < last; place += 1) rows.push(this.row(place));
    if (last < this.rows.length) rows.push(this.space(this.rows.length - last));
    if (!this.rows.length) {
      const text = this.model.count ? "No task is like that." : "There were no tasks to run.";
      rows.push(element("tr", { class: "nothing", role: "row" }, element("td", {
        role: "gridcell", colspan: this.shownColumns(), text,
      })));
    }
    this.body.replaceChildren(...rows);
    this.mark();
  }

  /** How many columns a page of this width has; to span more would make room for them. */
  shownColumns() {
    return Math.max(1, this.columns.filter((column) => column.head.offsetWidth).length);
  }

  /** A row as high as those that are not in the page. */
  space(count) {
    const cell = element("td");
    cell.style.height = `${count * ROW_HEIGHT}px`;
    return element("tr", { class: "space", "aria-hidden": "true" }, cell);
  }

  row(place) {
    const task = this.rows[place];
    const cells = this.columns.map((column, at) => {
      const shown = column.show(task);
      const isOnChain = at === 0 && this.model.chainPlace.has(task);
      const cell = element("td", {
        class: `c-${column.name}${column.isNumber ? " number" : ""}${isOnChain ? " on-chain" : ""}${column.name === "error" ? " error" : ""}`,
        role: "gridcell",
        "aria-colindex": at + 1,
      });
      cell.append(shown);
      if (typeof shown === "string" && shown.length > 12) cell.title = shown;
      if (at === 0) cell.title = visible(this.model.name[task]);
      return cell;
    });
    return element("tr", {
      id: `row-${place}`, role: "row", "aria-rowindex": place + 2, "data-place": place, "data-task": task,
    }, ...cells);
  }

  /** Mark the row that the keys are on, and the one whose details are open. */
  mark() {
    for (const row of this.body.querySelectorAll("tr[data-place]")) {
      row.classList.toggle("active", Number(row.dataset.place) === this.active);
      row.setAttribute("aria-selected", Number(row.dataset.task) === this.selected);
    }
    if (byId(`row-${this.active}`)) this.grid.setAttribute("aria-activedescendant", `row-${this.active}`);
    else this.grid.removeAttribute("aria-activedescendant");
  }

  select(task) {
    this.selected = task;
    const place = this.rows.indexOf(task);
    if (place >= 0) {
      this.active = place;
      this.reveal();
    }
    this.mark();
  }

  reveal() {
    const head = byId("grid-head").offsetHeight;
    const top = this.active * ROW_HEIGHT;
    const room = this.grid.clientHeight - head;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    else if (top + ROW_HEIGHT > this.grid.scrollTop + room) this.grid.scrollTop = top + ROW_HEIGHT - room;
    this.render();
    this.mark();
  }

  onKey(event) {
    if (event.target !== this.grid || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.grid.clientHeight / ROW_HEIGHT) - 2);
    const to = {
      ArrowDown: this.active + 1,
      ArrowUp: this.active - 1,
      PageDown: this.active + page,
      PageUp: this.active - page,
      Home: 0,
      End: this.rows.length - 1,
    }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.active = clamp(to, 0, Math.max(0, this.rows.length - 1));
      this.reveal();
    } else if ((event.key === "Enter" || event.key === " ") && this.rows.length) {
      event.preventDefault();
      this.open(this.rows[this.active], this.grid);
    }
  }

  fillForPaper() {
    this.isOnPaper = true;
    const shown = Math.min(this.rows.length, MOST_ON_PAPER);
    const left = this.rows.length - shown;
    byId("grid-left-out").textContent = left ? `and ${plural(left, "more task")}: search or filter before printing to choose which.` : "";
    const all = this.rows;
    this.rows = all.slice(0, shown);
    this.fill(0, shown);
    this.rows = all;
  }

  backToScreen() {
    this.isOnPaper = false;
    this.shown = "";
    this.render();
  }
}

function badge(kind) {
  return element("span", { class: `badge ${kind}`, text: kind === "skipped" ? "FAILED" : KIND_NAMES[kind], title: KIND_NAMES[kind] });
}

function waitText(model, task) {
  return model.waits(task).map((part) => `${visible(part.what)} ${inSeconds(part.seconds)}`).join(", ");
}
