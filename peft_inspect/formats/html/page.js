const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 400; // rows that one list adds at a time
const RANKS = ["error", "warning", "note"];
const READ = new Set(["title", "aria-label"]); // attributes that people read; the others hold what it is about, as it is
const FLAGS = { error: "✗", warning: "!", note: "·" };

// --- small helpers: text only, never markup ---------------------------------------------------

const byId = (id) => document.getElementById(id);
const spelled = (sign) => "\\u{" + sign.codePointAt(0).toString(16) + "}";
const shown = (text) => String(text).replace(/[\p{C}\u2028\u2029]/gu, spelled);
const shownLines = (text) => String(text).split("\n").map(shown).join("\n");
const make = (tag, options = {}, ...children) => {
  const element = document.createElement(tag);
  const { text, prose, ...attributes } = options; // prose may have several lines, a name may not
  if (text !== undefined) element.textContent = shown(text);
  if (prose !== undefined) element.textContent = shownLines(prose);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, READ.has(name) ? shown(value) : value);
  element.append(...children.filter(Boolean));
  return element;
};
const exact = (number) => number.toLocaleString("en-US");
const human = (number) => {
  const units = ["", "K", "M", "B", "T"];
  let unit = 0;
  while ((unit === 0 ? number >= 10000 : number >= 999.5) && unit < 4) { number /= 1000; unit += 1; }
  return unit === 0 ? exact(number) : number.toPrecision(3) + units[unit];
};
const norm = (value) => (value === null ? "" : value.toExponential(2));

// --- the modules, indexed once -----------------------------------------------------------------

const all = [];
const byPath = new Map();
const index = (node, parent, path) => {
  node.parent = parent;
  node.path = path;
  node.flagged = Boolean(node.f);
  node.adapted = Boolean(node.a);
  all.push(node);
  if (!node.g && !byPath.has(path)) byPath.set(path, node);
  node.within = [0, 0]; // adapters below: those that train, and the others
  for (const child of node.k || []) {
    index(child, node, child.g ? path : path ? path + "." + child.n : child.n);
    if (child.c || child.changes) node.changes = true;
    for (const [trains] of child.a || []) node.within[trains ? 0 : 1] += 1;
    node.within = node.within.map((count, at) => count + child.within[at]);
    for (const severity of [...(child.f || []).map((flag) => flag[1]), child.inside]) {
      if (severity && (!node.inside || RANKS.indexOf(severity) < RANKS.indexOf(node.inside))) node.inside = severity;
    }
  }
};
if (data.tree) {
  index(data.tree, null, "");
  data.tree.path = "";
}

// --- heading ---------------------------------------------------------------------------------

const tile = (label, value, mark = "") => byId("tiles").append(make("li", { class: mark }, make("b", { text: value }), make("span", { text: label })));
byId("source").textContent = shown(data.source);
byId("chain").textContent = shown(data.chains.join("; "));
if (data.gradients) {
  const { with: arrived, total, other } = data.gradients;
  tile("LoRA params with gradients", arrived + "/" + total, arrived === total && total ? "good" : "bad");
  tile("other trainable params with gradients", other[0] + "/" + other[1]);
}
const errors = data.findings.filter((finding) => finding.severity === "error").length;
const counted = (number, word) => number + " " + word + (number === 1 ? "" : "s");
tile((data.findings.length === 1 ? "finding" : "findings") + (errors ? ", " + counted(errors, "error") : ""), data.findings.length, errors ? "bad" : "");
if (data.compared) {
  byId("compared").textContent = shown("compared " + data.compared);
  byId("compared").hidden = byId("changed").hidden = byId("signs").hidden = false;
}
tile("parameters", human(data.parameters[0]));
tile("trainable", human(data.parameters[1]));
tile(data.mode + " mode", data.weights);
for (const note of [data.memory, data.gradients && "batch: " + data.gradients.batch + " (" + data.gradients.made_by + ")", ...data.notes]) {
  if (note) byId("tiles").after(make("p", { class: "hint", text: note }));
}

// --- the answer, and what the steps of a program were used for -----------------------------------

const ANSWERED = { green: "good", yellow: "open", "bold red": "bad" };
byId("answer").textContent = shown(data.answer[0]);
byId("answer").className = ANSWERED[data.answer[1]];
byId("steps").hidden = !data.steps.length;
data.steps.forEach((use, at) => {
  const line = make("li", { text: use });
  for (const finding of data.findings.filter((one) => one.step === at + 1)) {
    line.append(": ", make("a", { href: "#finding-" + finding.code, text: finding.code }), " " + shown(finding.verified || ""));
  }
  byId("step-list").append(line);
});
const copyText = (text, button) => {
  const before = button.textContent;
  const done = () => {
    button.textContent = "copied";
    setTimeout(() => { button.textContent = before; }, 1200);
  };
  const byHand = () => {
    const field = make("textarea", { class: "skip" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    done();
  };
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, byHand);
  else byHand();
};

// --- findings --------------------------------------------------------------------------------

const linked = new Set(); // codes that lead to their first card
const findingCard = (finding) => {
  const card = make("article", { class: "finding " + finding.severity });
  if (!linked.has(finding.code)) card.id = "finding-" + finding.code;
  linked.add(finding.code);
  card.append(make("h3", {}, make("span", { class: "severity-" + finding.severity, text: finding.severity + " " + finding.code }), " " + shown(finding.rule)));
  card.append(make("p", { prose: finding.message }));
  if (finding.at) card.append(make("p", { class: "path", text: finding.at }), make("pre", {}, make("code", { prose: finding.line.trim() })));
  if (finding.fix) {
    const copy = make("button", { type: "button", class: "copy-fix", text: "copy", "aria-label": "copy the fix" });
    copy.addEventListener("click", () => copyText(finding.fix, copy));
    card.append(make("p", { class: "fix", prose: "Fix: " + finding.fix }, " ", copy));
  }
  if (finding.verified) card.append(make("p", { class: finding.helped ? "helped" : "", text: "Verified" + (finding.step ? " in step " + finding.step : "") + ": " + finding.verified }));
  if (finding.places.length) {
    const list = make("ul");
    for (const [label, path] of finding.places.slice(0, 20)) {
      const link = make("button", { type: "button", class: "link path", text: label || "(root)", "data-path": path });
      link.addEventListener("click", () => reveal(path));
      list.append(make("li", {}, link));
    }
    if (finding.places.length > 20) list.append(make("li", { text: "and " + (finding.places.length - 20) + " more" }));
    card.append(make("p", { text: counted(finding.count, "module") + ":" }), list);
  }
  if (data.pages[finding.code]) {
    const about = make("details", {}, make("summary", { text: "About " + finding.code }));
    about.append(...data.pages[finding.code].split("\n\n").map((paragraph) => make("p", { prose: paragraph })));
    card.append(about);
  }
  return card;
};
byId("finding-list").append(...(data.findings.length ? data.findings.map(findingCard) : [make("p", { text: "No findings." })]));

// --- tables ----------------------------------------------------------------------------------

const tableOf = (heads, rows) => {
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col", text: head })))));
  table.append(make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", { text: cell }))))));
  return table;
};
for (const adapter of data.targets) {
  byId("target-tables").append(make("h3", { text: "Adapter " + adapter.adapter + " (" + adapter.type + ")" }));
  byId("target-tables").append(adapter.rows.length ? tableOf(["field", "entry", "modules", "where", "layers"], adapter.rows) : make("p", { text: "Its config names no targets." }));
}
if (!data.targets.length) byId("target-tables").append(make("p", { text: "There is no adapter." }));
const NUMBERS = new Set(["params", "share", "adapted", "r"]);
const barOf = (part, adapted, most) => {
  const bar = make("span", { class: "bar", role: "img", "aria-label": (100 * part).toFixed(1) + "% of the parameters, " + (100 * adapted).toFixed(1) + "% with adapters" });
  const filled = make("span", { class: "filled" });
  bar.style.width = Math.max(100 * part / most, 1) + "%";
  filled.style.width = (part ? 100 * adapted / part : 0) + "%";
  bar.append(filled);
  return bar;
};
if (data.coverage) {
  const { said, heads: columns, places } = data.coverage;
  const most = Math.max(...places.flatMap(([, rows]) => rows.map(([, part]) => part)));
  const body = make("tbody");
  for (const [place, rows] of places) {
    body.append(make("tr", {}, make("th", { class: "place", colspan: columns.length + 1, scope: "rowgroup", text: place })));
    for (const [cells, part, adapted] of rows) {
      const line = make("tr", {}, ...cells.map((cell, at) => make("td", { class: NUMBERS.has(columns[at]) ? "number" : "", text: cell })));
      line.insertBefore(make("td", { class: "bars" }, part ? barOf(part, adapted, most) : null), line.children[3]);
      body.append(line);
    }
  }
  const top = make("tr", {}, ...columns.map((head) => make("th", { class: NUMBERS.has(head) ? "number" : "", scope: "col", text: head })));
  top.insertBefore(make("th", { scope: "col", text: "filled: adapted" }), top.children[3]);
  byId("coverage").append(make("h3", { text: "Coverage: " + said }), make("table", { class: "covered" }, make("thead", {}, top), body));
}
const rules = tableOf(["code", "rule", "outcome", "why"], data.outcomes);
for (const cell of rules.querySelectorAll("tbody td:first-child")) {
  if (byId("finding-" + cell.textContent)) cell.replaceChildren(make("a", { href: "#finding-" + cell.textContent, text: cell.textContent }));
}
byId("rule-table").append(rules);
byId("environment").textContent = shown(Object.entries(data.environment).map(([name, version]) => name + " " + version).join(", "));
