// The page is put together here.

const model = new Model(JSON.parse(byId("data").textContent));

let timeline = null;
let graph = null;
const details = new Details(model, (task) => {
  for (const part of [table, timeline, graph]) part?.select(task);
});
const open = (task, opener) => details.open(task, opener);

showHead(model);
showSummary(model);
showTime(model, open);
const table = new Table(model, open);
showFailures(model, open, table);
if (model.spans.length) timeline = new Timeline(model, open);
else byId("timeline").hidden = true;
if (model.count) graph = new GraphView(model, open);
else byId("graph").hidden = true;

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    byId("search").focus();
  }
});

addEventListener("beforeprint", () => {
  table.fillForPaper();
  timeline?.drawForPaper();
  graph?.drawForPaper();
});
addEventListener("afterprint", () => {
  table.backToScreen();
  timeline?.backToScreen();
  graph?.backToScreen();
});

const asked = /^#task-(\d+)$/u.exec(location.hash);
if (asked && Number(asked[1]) < model.count) open(Number(asked[1]), null);
