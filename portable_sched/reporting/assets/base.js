// Elements, texts and times. Values of the run reach the page as text alone: through `textContent`,
// attributes that are no code, and the canvas. No HTML is ever made of them.

const byId = (id) => document.getElementById(id);

// What shows nothing, or turns the text around it: shown as an escape, so that names which look
// alike and are not can be told apart.
const UNSEEN = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/gu;

function escaped(character) {
  const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
  return short ?? `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`;
}

/** A name or message as one line that hides nothing. */
function visible(text) {
  const shown = text.replace(UNSEEN, escaped);
  // A name may be a space, and has to be found all the same.
  return shown === "" || shown.trim() ? shown : JSON.stringify(shown);
}

/** A text of several lines that hides nothing. */
function visibleLines(text) {
  return text.replace(UNSEEN, (each) => (each === "\n" || each === "\t" ? each : escaped(each)));
}

/** An element with attributes (`class`, `text` and `on...` are what they seem) and children. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** A task's name, as every part of the page shows it. */
function nameElement(name, tag = "span") {
  return element(tag, { class: "name", text: visible(name) });
}

/** A sentence whose parts in backquotes are set as code. */
function sentenceParts(text) {
  return text.split("`").map((part, at) => (
    at % 2 ? element("code", { text: part }) : document.createTextNode(part)
  ));
}

function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

/** A time as people say it: `21 ms` is `0.021 s`; `4.1 s`, `38 s`, `12 min 5 s`. */
function inSeconds(seconds) {
  if (seconds > 0 && seconds < 0.0005) return `${Math.max(1, Math.round(seconds * 1e6))} \u00b5s`;
  if (seconds < 0.9995) return `${Number(seconds.toFixed(3))} s`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 120) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A moment of the run as an axis has it, where the ticks are `step` seconds apart. */
function onAxis(moment, step) {
  if (step < 60) {
    const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(step))));
    return `${moment.toFixed(digits)} s`;
  }
  const whole = Math.round(moment);
  const pad = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const rest = `${pad(Math.floor((whole % 3600) / 60))}:${pad(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

/** The first of `sizes` that is at least `least`: how far apart the ticks of an axis stand. */
function tickStep(least) {
  const long = [60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400];
  if (least > 30) return long.find((size) => size >= least) ?? Math.ceil(least / 86400) * 86400;
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1e-6)));
  const step = [1, 2, 5, 10].map((each) => each * power).find((size) => size >= least * 0.999);
  return step > 10 && step < 60 ? (step <= 20 ? 20 : 30) : step >= 60 ? 60 : step;
}

function clamp(value, least, most) {
  return Math.max(least, Math.min(most, value));
}

/** Tell what only eyes can see to those who listen. */
function say(text) {
  byId("said").textContent = text;
}
