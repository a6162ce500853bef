// All about one task, beside the rest: why it stands where it does, its time, its attempts.

const MOST_LINKS = 40;

class Details {
  constructor(model, changed) {
    this.model = model;
    this.changed = changed;
    this.task = null;
    this.opener = null;
    this.panel = byId("details");
    byId("details-close").addEventListener("click", () => this.close());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.task !== null) {
        event.preventDefault();
        this.close();
      }
    });
  }

  /** Show a task; `opener` is what gets the focus back. */
  open(task, opener) {
    if (this.task === null || (opener && !this.panel.contains(opener))) this.opener = opener ?? null;
    this.task = task;
    hideTip();
    const title = byId("details-title");
    title.textContent = visible(this.model.name[task]);
    byId("details-body").replaceChildren(...this.parts(task).filter(Boolean));
    byId("details-body").scrollTop = 0;
    this.panel.hidden = false;
    document.body.classList.add("with-details");
    title.focus({ preventScroll: true });
    remember(`#task-${task}`);
    this.changed(task);
  }

  close() {
    this.task = null;
    this.panel.hidden = true;
    document.body.classList.remove("with-details");
    remember("#");
    this.changed(null);
    this.opener?.focus({ preventScroll: true });
  }

  parts(task) {
    const { model } = this;
    const kind = model.kinds[task];
    const settings = model.settings.get(task) ?? {};
    const about = settings.about === undefined ? null : model.strings[settings.about];
    return [
      element("p", {}, badge(kind), kind === "skipped" ? " not started" : ""),
      about && element("p", { class: "muted sentence", text: visible(about) }),
      element("p", { class: "sentence", id: "details-why", text: visible(model.sentence(task)) }),
      this.way(task),
      this.facts(task, settings),
      this.times(task),
      ...this.attempts(task),
      this.links("Depends on", model.dependencies[task]),
      this.links("Comes after", model.after.get(task) ?? []),
      this.links("Needed by", model.dependents[task]),
      this.links("Followed by", model.followers.get(task) ?? []),
    ];
  }

  /** From a task that was not started to the one whose own failure began it, as links. */
  way(task) {
    const way = this.model.wayToRoot(task);
    if (way.length < 2) return null;
    return this.links("The way to what failed", way.slice(1));
  }

  facts(task, settings) {
    const { model } = this;
    const facts = [["Attempts", `${model.attempts[task]} of ${model.allowed[task]}`]];
    const duration = model.duration(task);
    if (duration !== null) {
      facts.push(["Duration", inSeconds(duration)], ["Started", `${inSeconds(model.start[task])} after the run began`]);
      facts.push(["Slack", model.slack[task] > 0 ? `could have ended ${inSeconds(model.slack[task])} later` : "none: any delay delays the run"]);
    }
    for (const { start, end } of model.opened.filter((span) => span.task === task)) {
      facts.push(["Open", `for ${inSeconds(end - start)}, until ${inSeconds(end)}`]);
    }
    if (settings.priority) facts.push(["Priority", settings.priority]);
    if (settings.executor) facts.push(["Runs in", `executor ${visible(settings.executor)}`]);
    if (typeof settings.timeout === "number") facts.push(["Timeout", inSeconds(settings.timeout)]);
    if (settings.resources) {
      facts.push(["Holds", settings.resources.map(([name, units]) => `${resourceName(visible(name))} \u00d7 ${units}`).join(", ")]);
    }
    if (model.chainPlace.has(task)) {
      facts.push(["Chain", `task ${model.chainPlace.get(task) + 1} of ${model.chain.length} that set the wall time`]);
    }
    return element("dl", {}, ...facts.flatMap(([what, text]) => [element("dt", { text: what }), element("dd", { text })]));
  }

  times(task) {
    const { model } = this;
    const parts = model.waits(task).map((part) => ({ ...part, what: `waiting for ${part.what}` }));
    for (const part of parts) {
      if (part.kind === "backoff") part.what = "in backoff";
    }
    if (model.running[task] > 0) parts.push({ kind: model.kinds[task], what: "in its function", seconds: model.running[task] });
    if (!parts.length) return null;
    return element("div", {}, element("h3", { text: "Its time, from the start of the run" }), ...shareBar(parts));
  }

  attempts(task) {
    const { model } = this;
    const failures = model.failures.get(task) ?? [];
    if (!failures.length) return [];
    const made = failures.map((failure, at) => {
      const backoff = failure.backoff > 0 ? `, then ${inSeconds(failure.backoff)} of backoff` : "";
      return element("details", { class: "attempt", open: at === failures.length - 1 },
        element("summary", {},
          element("b", { text: `Attempt ${failure.attempt} failed` }),
          ` after ${inSeconds(failure.duration)}, ${inSeconds(failure.start)} into the run${backoff}`),
        element("pre", { class: "traceback", tabindex: "0", text: visibleLines(model.traceback(failure)) }));
    });
    return [element("div", {}, element("h3", { text: "Attempts that failed" }), ...made)];
  }

  links(title, tasks) {
    if (!tasks.length) return null;
    const shown = tasks.slice(0, MOST_LINKS).map((task) => element("li", {},
      element("button", { type: "button", class: "link", onclick: () => this.open(task, null) }, nameElement(this.model.name[task])),
      this.model.kinds[task] === "completed" ? null : badge(this.model.kinds[task])));
    const left = tasks.length - shown.length;
    if (left > 0) shown.push(element("li", { class: "muted", text: `and ${plural(left, "more", "more")}` }));
    return element("div", {},
      element("h3", { text: tasks.length > 1 ? `${title} (${tasks.length.toLocaleString("en")})` : title }),
      element("ul", { class: "names" }, ...shown));
  }
}

/** Put the open task into the address, so that it can be sent to others. */
function remember(hash) {
  try {
    history.replaceState(null, "", hash === "#" ? location.pathname + location.search : hash);
  } catch {
    // Some places that show a file have no history.
  }
}

/** A bar of shares and what they are. */
function shareBar(parts) {
  const bar = element("div", { class: "shares", "aria-hidden": "true" });
  const list = element("ul", { class: "legend" });
  fillShares(bar, list, parts);
  return [bar, list];
}

function fillShares(bar, list, parts) {
  const whole = parts.reduce((sum, part) => sum + part.seconds, 0);
  bar.replaceChildren(...parts.map((part) => {
    const share = element("span", { class: `shade-${part.kind}`, title: `${visible(part.what)}: ${inSeconds(part.seconds)}` });
    share.style.flexGrow = String((100 * part.seconds) / whole);
    return share;
  }));
  list.replaceChildren(...parts.map((part) => element("li", {},
    element("i", { class: `shade-${part.kind}` }), element("b", { text: inSeconds(part.seconds) }), visible(part.what))));
}
