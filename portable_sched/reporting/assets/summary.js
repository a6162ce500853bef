// What comes first: how it went, what failed, where the time went.

const MOST_FAILURES = 8;
const MOST_FAILURES_ON_PAPER = 50;
const MOST_LINKS_OF_CHAIN = 12;

function showHead(model) {
  const { run } = model;
  const date = new Date(run.date);
  const counts = statusCounts(model);
  byId("heading").textContent = visible(model.heading);
  const when = byId("when");
  when.textContent = `${run.date.slice(0, 10)} ${run.date.slice(11, 19)} UTC`;
  when.title = date.toLocaleString();
  const failed = counts.get("FAILED") ?? 0;
  const cancelled = counts.get("CANCELLED") ?? 0;
  const verdict = byId("verdict");
  const [kind, text] = !run.is_over
    ? ["running", "Under way"]
    : failed ? ["failed", `${failed.toLocaleString("en")} failed`]
      : cancelled ? ["cancelled", `${cancelled.toLocaleString("en")} cancelled`]
        : ["completed", model.count ? "All completed" : "Nothing to run"];
  verdict.className = `verdict ${kind}`;
  verdict.textContent = text;
  if (!run.is_over) {
    const notice = byId("notice");
    notice.hidden = false;
    notice.textContent = `The run was still under way: this is how it stood ${inSeconds(run.wall_time)} after it began.`;
  }
}

function statusCounts(model) {
  const counts = new Map();
  for (const code of model.status) {
    const status = model.statusNames[code];
    counts.set(status, (counts.get(status) ?? 0) + 1);
  }
  return counts;
}

function showSummary(model) {
  const { run } = model;
  const facts = [];
  const fact = (what, value, more = "", kind = "") => facts.push(element("div", { class: kind },
    element("dt", { text: what }), element("dd", { text: value }), more ? element("dd", { text: more }) : null));
  fact("Tasks", model.count.toLocaleString("en"));
  for (const [status, count] of [...statusCounts(model)].sort()) {
    const share = count === model.count ? "all of them" : `${Math.round((1000 * count) / model.count) / 10} %`;
    const skipped = status === "FAILED" && model.skipped.size ? `${model.skipped.size.toLocaleString("en")} of them not started` : share;
    fact(status.charAt(0) + status.slice(1).toLowerCase(), count.toLocaleString("en"), skipped, status.toLowerCase());
  }
  fact(run.is_over ? "Wall time" : "So far", inSeconds(run.wall_time), `${inSeconds(sumOf(model.running))} of work`);
  const limit = run.max_concurrency === null ? "no limit" : `of ${run.max_concurrency.toLocaleString("en")}`;
  fact("Most at once", run.most_running.toLocaleString("en"), limit);
  const attempts = sumOf(model.attempts);
  const again = model.attempts.filter((count) => count > 1).length;
  fact("Attempts", attempts.toLocaleString("en"), again ? `${plural(again, "task")} tried again` : "none repeated");
  if (run.resources.length) {
    fact("Resources", run.resources.length.toLocaleString("en"), resourceList(run.resources));
  }
  if (run.order) fact("Order", visible(run.order));
  byId("summary").replaceChildren(...facts);
}

function resourceList(resources) {
  const most = 6;
  const shown = resources.slice(0, most).map(([name, units]) => `${visible(name).slice(0, 30)} \u00d7 ${units}`);
  return resources.length > most ? `${shown.join(", ")} \u2026` : shown.join(", ");
}

function sumOf(column) {
  return column.reduce((sum, each) => sum + each, 0);
}

function showFailures(model, open, table) {
  const failed = [...model.errors.keys()];
  if (!failed.length) return;
  // First what stopped most.
  const stopped = (task) => model.stopped.get(task) ?? 0;
  failed.sort((one, other) => stopped(other) - stopped(one) || one - other);
  byId("failed").hidden = false;
  byId("failed-title").textContent = `What failed (${failed.length.toLocaleString("en")})`;
  byId("failed-list").replaceChildren(...failed.slice(0, MOST_FAILURES).map((task) => {
    const attempts = `attempt ${model.attempts[task]} of ${model.allowed[task]}`;
    const others = stopped(task) ? `; ${plural(stopped(task), "task")} not started because of it` : "";
    const button = element("button", { type: "button", onclick: () => open(task, button) },
      nameElement(model.name[task]),
      element("span", { class: "muted", text: ` ${attempts}${others}` }),
      element("span", { class: "why", text: visible(model.error(task).slice(0, 500)) }));
    return element("li", {}, button);
  }));
  const left = failed.length - MOST_FAILURES;
  if (left > 0) {
    byId("failed-more").replaceChildren(element("button", {
      type: "button",
      text: `and ${plural(left, "more", "more")}: show them in the table`,
      onclick: () => {
        table.only("FAILED");
        byId("tasks").scrollIntoView();
        byId("grid").focus({ preventScroll: true });
      },
    }));
  }
  fillInFull(model, failed);
}

/** For paper, where nothing can be clicked: the last traceback of what failed. */
function fillInFull(model, failed) {
  byId("in-full").dataset.count = failed.length;
  addEventListener("beforeprint", () => {
    const shown = failed.slice(0, MOST_FAILURES_ON_PAPER);
    const made = shown.map((task) => {
      const failure = (model.failures.get(task) ?? []).at(-1);
      return element("div", { class: "attempt" },
        element("h3", {}, nameElement(model.name[task])),
        element("p", { class: "sentence", text: visible(model.sentence(task)) }),
        failure ? element("pre", { class: "traceback", text: visibleLines(model.traceback(failure)) }) : null);
    });
    const left = failed.length - shown.length;
    if (left > 0) made.push(element("p", { text: `and ${plural(left, "more", "more")}.` }));
    byId("in-full-list").replaceChildren(...made);
  });
}

function showTime(model, open) {
  const { run, chain } = model;
  const advice = byId("advice");
  if (!chain.length) {
    byId("time").hidden = true;
    return;
  }
  const text = run.advice
    ? `${visible(run.advice)}, if tasks take as long as they did.`
    : "No limit was in the way: only shorter tasks in the chain below save time.";
  advice.replaceChildren(...sentenceParts(text));
  const shares = model.shares();
  byId("shares").hidden = !shares.length;
  fillShares(byId("shares"), byId("shares-legend"), shares);
  const whose = run.is_over ? "the wall time" : "the time so far";
  byId("chain-title").textContent = chain.length > 1
    ? `The chain of ${chain.length.toLocaleString("en")} tasks that set ${whose}`
    : `The task that set ${whose}`;
  showChain(model, open, chain.length <= MOST_LINKS_OF_CHAIN + 2);
}

/** The chain as buttons; of a long one the beginning and the end, until all is asked for. */
function showChain(model, open, isWhole) {
  const { chain } = model;
  const half = MOST_LINKS_OF_CHAIN / 2;
  const joint = {
    resource: (link) => `\u2192 ${visible(resourceName(link.resource))} free`,
    slot: () => "\u2192 slot free",
    backoff: () => "\u2192",
    dependency: () => "\u2192",
    start: () => "",
  };
  const shown = chain.map((link, at) => {
    const button = element("button", { type: "button", onclick: () => open(link.task, button) },
      nameElement(model.name[link.task]), element("span", { class: "muted", text: ` ${inSeconds(link.end - link.start)}` }));
    const text = at ? joint[link.reason](link) : "";
    return element("li", {}, text ? element("span", { class: "muted", text }) : null, button);
  });
  if (!isWhole) {
    shown.splice(half, chain.length - 2 * half, element("li", {}, element("button", {
      type: "button",
      class: "more",
      text: `\u2192 \u2026 ${plural(chain.length - 2 * half, "more", "more")} \u2026`,
      onclick: () => showChain(model, open, true),
    })));
  }
  byId("chain").replaceChildren(...shown);
}
