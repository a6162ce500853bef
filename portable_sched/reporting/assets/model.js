// What the page knows of the run: the columns that came with it, and what follows from them.

const KIND_NAMES = {
  completed: "COMPLETED",
  failed: "FAILED",
  skipped: "FAILED, not started",
  cancelled: "CANCELLED",
  running: "RUNNING",
  pending: "PENDING",
};

const WAIT_NAMES = { dependencies: "dependencies", slot: "a slot", backoff: "backoff" };

class Model {
  constructor(data) {
    const tasks = data.tasks;
    this.heading = data.heading;
    this.run = data.run;
    this.chain = data.chain.map(([task, reason, resource, start, end]) => (
      { task, reason, resource, start, end }
    ));
    this.name = tasks.name;
    this.count = tasks.name.length;
    this.statusNames = data.statuses;
    this.status = tasks.status;
    this.attempts = tasks.attempts;
    this.allowed = tasks.allowed;
    this.start = tasks.start;
    this.end = tasks.end;
    this.slack = tasks.slack;
    this.slot = tasks.slot;
    this.backoff = tasks.backoff;
    this.running = tasks.running;
    this.waited = tasks.waited;
    this.dependencies = tasks.dependencies;
    // Maps, not objects: a resource may be called `__proto__`.
    this.resources = new Map(data.resources);
    this.after = new Map(data.after);
    this.settings = new Map(data.settings);
    this.errors = new Map(data.errors);
    this.explanations = new Map(data.explanations);
    this.skipped = new Map(data.skipped.map(([task, dependency, root]) => (
      [task, { dependency, root }]
    )));
    this.opened = data.open.map(([task, start, end]) => ({ task, start, end }));
    this.strings = data.strings;
    this.failures = new Map(data.failures.map(([task, failures]) => [
      task,
      failures.map(([attempt, start, duration, backoff, lines]) => (
        { attempt, start, duration, backoff, lines }
      )),
    ]));
    this.spans = this.spansOf(data.spans);
    this.kinds = this.status.map((code, task) => (
      this.skipped.has(task) ? "skipped" : this.statusNames[code].toLowerCase()
    ));
    this.chainPlace = new Map(this.chain.map((link, at) => [link.task, at]));
    // Not all attempts of a task need be in the chain: only those since it was let in.
    for (const link of this.chain) {
      link.spans = (this.spansByTask.get(link.task) ?? []).filter((span) => span.start >= link.start - 1e-5);
      for (const span of link.spans) span.isOnChain = true;
    }
    this.dependents = this.name.map(() => []);
    this.followers = new Map();
    this.dependencies.forEach((needed, task) => {
      for (const one of needed) this.dependents[one].push(task);
    });
    for (const [task, earlier] of this.after) {
      for (const one of earlier) {
        if (!this.followers.has(one)) this.followers.set(one, []);
        this.followers.get(one).push(task);
      }
    }
    this.stopped = new Map();
    for (const { root } of this.skipped.values()) {
      this.stopped.set(root, (this.stopped.get(root) ?? 0) + 1);
    }
  }

  spansOf(columns) {
    this.spansByTask = new Map();
    return columns.task.map((task, at) => {
      const span = {
        at,
        task,
        attempt: columns.attempt[at],
        slot: columns.slot[at],
        start: columns.start[at],
        end: columns.end[at],
        kind: this.statusNames[columns.status[at]].toLowerCase(),
      };
      if (!this.spansByTask.has(task)) this.spansByTask.set(task, []);
      this.spansByTask.get(task).push(span);
      return span;
    });
  }

  /** Seconds from a task's first start to its end; null for a task that was not started. */
  duration(task) {
    if (this.start[task] === null) return null;
    return Math.max(0, (this.end[task] ?? this.run.wall_time) - this.start[task]);
  }

  waitsFor(task) {
    return [...this.dependencies[task], ...(this.after.get(task) ?? [])];
  }

  comesBefore(task) {
    return [...this.dependents[task], ...(this.followers.get(task) ?? [])];
  }

  error(task) {
    const own = this.errors.get(task);
    if (own !== undefined) return own;
    const skipped = this.skipped.get(task);
    if (skipped === undefined) return "";
    const { dependency, root } = skipped;
    const because = dependency === root ? "" : `, because '${this.name[root]}' failed`;
    return `Dependency '${this.name[dependency]}' failed${because}: ${this.errors.get(root) ?? ""}`;
  }

  /** The way from a task that was not started to the one whose own failure began it. */
  wayToRoot(task) {
    const way = [task];
    while (this.skipped.has(way.at(-1))) way.push(this.skipped.get(way.at(-1)).dependency);
    return way;
  }

  /** What a task waited for, in parts that are not nothing, the longest first. */
  waits(task) {
    const parts = [
      { kind: "dependencies", what: "dependencies", seconds: this.waited[task] },
      { kind: "slot", what: WAIT_NAMES.slot, seconds: this.slot[task] },
      { kind: "backoff", what: "backoff", seconds: this.backoff[task] },
    ];
    for (const [resource, seconds] of this.resources.get(task) ?? []) {
      parts.push({ kind: "resource", what: resourceName(resource), seconds });
    }
    return parts.filter((part) => part.seconds > 0).sort((one, other) => other.seconds - one.seconds);
  }

  /** Seconds in which nothing but a limit, or its own backoff, kept a task from running. */
  keptWaiting(task) {
    const parts = this.waits(task).filter((part) => part.kind !== "dependencies");
    return parts.reduce((sum, part) => sum + part.seconds, 0);
  }

  /** Where the time of all tasks together went: in functions, and waiting with all else there. */
  shares() {
    const sum = (column) => column.reduce((total, seconds) => total + seconds, 0);
    const parts = [{ kind: "completed", what: "in functions", seconds: sum(this.running) }];
    const byResource = new Map();
    for (const waits of this.resources.values()) {
      for (const [resource, seconds] of waits) {
        byResource.set(resource, (byResource.get(resource) ?? 0) + seconds);
      }
    }
    for (const [resource, seconds] of byResource) {
      parts.push({ kind: "resource", what: `waiting for ${resourceName(resource)}`, seconds });
    }
    parts.push({ kind: "slot", what: "waiting for a slot", seconds: sum(this.slot) });
    parts.push({ kind: "backoff", what: "in backoff", seconds: sum(this.backoff) });
    return parts.filter((part) => part.seconds >= 0.0005);
  }

  /** When a task could have started as far as others are concerned; null if it never could. */
  ready(task) {
    if (this.start[task] !== null) return Math.min(this.waited[task], this.start[task]);
    const waits = this.waits(task);
    return waits.some((part) => part.kind !== "dependencies") ? this.waited[task] : null;
  }

  /** Stretches in which a task was ready and not in its function: before and between attempts. */
  gaps(task) {
    const ready = this.ready(task);
    if (ready === null) return [];
    const held = (this.resources.get(task) ?? []).reduce((sum, [, seconds]) => sum + seconds, 0);
    const kind = held > this.slot[task] ? "resource" : "slot";
    const gaps = [];
    let since = ready;
    let pause = 0;
    const push = (until) => {
      const resumed = Math.min(until, since + pause);
      if (resumed > since) gaps.push({ start: since, end: resumed, kind: "backoff" });
      if (until > resumed) gaps.push({ start: resumed, end: until, kind });
    };
    for (const span of this.spansByTask.get(task) ?? []) {
      push(span.start);
      since = span.end;
      pause = (this.failures.get(task) ?? []).find((one) => one.attempt === span.attempt)?.backoff ?? 0;
    }
    const until = this.end[task] ?? this.run.wall_time;
    if (this.kinds[task] !== "completed") push(until);
    return gaps;
  }

  traceback(failure) {
    return failure.lines.map((place) => this.strings[place]).join("\n");
  }

  /** Why a task stands where it does, in a sentence. */
  sentence(task) {
    const told = this.explanations.get(task);
    if (told !== undefined) return told;
    if (this.kinds[task] === "completed") {
      const attempts = this.attempts[task];
      const took = `Completed in ${inSeconds(this.duration(task))}`;
      return attempts > 1 ? `${took}, at attempt ${attempts}.` : `${took}.`;
    }
    return this.error(task) || `The task is ${KIND_NAMES[this.kinds[task]]}.`;
  }
}

/** A resource as a sentence has it; the one without a name is the threads of the run. */
function resourceName(resource) {
  return resource === "" ? "a thread" : `\`${resource}\``;
}
