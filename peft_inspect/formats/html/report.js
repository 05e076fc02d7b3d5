"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 400; // rows that one list adds at a time
  const RANKS = ["error", "warning", "note"];
  const FLAGS = { error: "✗", warning: "!", note: "·" };

  // --- small helpers: text only, never markup ---------------------------------------------------

  const byId = (id) => document.getElementById(id);
  const shown = (text) => String(text).replace(/[\p{C}\u2028\u2029]/gu, (sign) => (sign === "\n" ? sign : "\\u{" + sign.codePointAt(0).toString(16) + "}"));
  const make = (tag, options = {}, ...children) => {
    const element = document.createElement(tag);
    const { text, ...attributes } = options;
    if (text !== undefined) element.textContent = shown(text);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter(Boolean));
    return element;
  };
  const exact = (number) => number.toLocaleString("en-US");
  const human = (number) => {
    const units = ["", "K", "M", "B", "T"];
    let unit = 0;
    while (number >= 10000 && unit === 0 || number >= 1000 && unit > 0 && unit < 4) { number /= 1000; unit += 1; }
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
    for (const child of node.k || []) {
      index(child, node, child.g ? path : path ? path + "." + child.n : child.n);
      for (const severity of [...(child.f || []).map((flag) => flag[1]), child.inside]) {
        if (severity && (!node.inside || RANKS.indexOf(severity) < RANKS.indexOf(node.inside))) node.inside = severity;
      }
    }
  };
  index(data.tree, null, "");
  data.tree.path = "";

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
  tile("findings, " + errors + " of them errors", data.findings.length, errors ? "bad" : "");
  tile("parameters", human(data.parameters[0]));
  tile("trainable", human(data.parameters[1]));
  tile("weights, " + data.mode + " mode", data.weights);
  for (const note of [data.memory, data.gradients && "batch: " + data.gradients.batch + " (" + data.gradients.made_by + ")", ...data.notes]) {
    if (note) byId("tiles").after(make("p", { class: "hint", text: note }));
  }

  // --- findings --------------------------------------------------------------------------------

  const findingCard = (finding) => {
    const card = make("article", { class: "finding " + finding.severity });
    card.append(make("h3", {}, make("span", { class: "severity-" + finding.severity, text: finding.severity + " " + finding.code }), " " + shown(finding.rule)));
    card.append(make("p", { text: finding.message }));
    if (finding.at) card.append(make("p", { class: "path", text: finding.at }), make("pre", {}, make("code", { text: finding.line.trim() })));
    if (finding.fix) card.append(make("p", { text: "Fix: " + finding.fix }));
    if (finding.verified) card.append(make("p", { class: finding.helped ? "helped" : "", text: "Verified: " + finding.verified }));
    if (finding.places.length) {
      const list = make("ul");
      for (const [label, path] of finding.places.slice(0, 20)) {
        const link = make("button", { type: "button", class: "link path", text: label || "(root)", "data-path": path });
        link.addEventListener("click", () => reveal(path));
        list.append(make("li", {}, link));
      }
      if (finding.places.length > 20) list.append(make("li", { text: "and " + (finding.places.length - 20) + " more" }));
      card.append(make("p", { text: finding.count + (finding.count === 1 ? " module:" : " modules:") }), list);
    }
    return card;
  };
  byId("finding-list").append(...(data.findings.length ? data.findings.map(findingCard) : [make("p", { text: "No findings." })]));

  // --- gradient map ----------------------------------------------------------------------------

  const mapCell = (row, cell) => {
    const [block, state, size, level, arrived, total, path] = cell;
    const known = state === "ok";
    const said = row.label + " [" + row.adapter + "] layer " + block + ": " + data.map.words[state] + (size === null ? "" : ", norm " + norm(size)) + ", " + arrived + "/" + total + " parameters";
    const element = make("td", {
      class: known ? "level-" + Math.round(level * 7) : "state-" + state,
      text: known ? "" : data.map.signs[state], title: said, "aria-label": said, tabindex: "-1", role: "gridcell", "data-path": path, "data-state": state,
    });
    const tell = () => { byId("cell").textContent = shown(said + "  " + path); };
    element.addEventListener("mouseenter", tell);
    element.addEventListener("focus", tell);
    element.addEventListener("click", () => reveal(path));
    return element;
  };
  const mapTable = (stack) => {
    const blocks = Math.max(...stack.rows.flatMap((row) => row.cells.map((cell) => cell[0]))) + 1;
    const table = make("table", { class: "map", role: "grid", "aria-label": "gradients of " + (stack.name || "modules outside the stacks") });
    const heads = make("tr", {}, make("th"));
    for (let block = 0; block < blocks; block += 1) heads.append(make("th", { text: stack.name && block % 5 === 0 ? block : "" }));
    table.append(make("thead", {}, heads));
    const body = make("tbody");
    for (const row of stack.rows) {
      const cells = new Map(row.cells.map((cell) => [cell[0], cell]));
      const line = make("tr", { role: "row" }, make("th", { scope: "row", text: row.label + (data.targets.length > 1 ? " [" + row.adapter + "]" : "") }));
      for (let block = 0; block < blocks; block += 1) {
        line.append(cells.has(block) ? mapCell(row, cells.get(block)) : make("td", { class: "absent" }));
      }
      body.append(line);
    }
    table.append(body);
    const first = body.querySelector("td[tabindex]");
    if (first) first.tabIndex = 0;
    table.addEventListener("keydown", (event) => moveInMap(table, event));
    return table;
  };
  const moveInMap = (table, event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const cell = event.target.closest("td");
    if (!cell) return;
    if (event.key === "Enter") reveal(cell.dataset.path);
    if (!step) return;
    event.preventDefault();
    let [line, column] = [cell.parentElement.rowIndex + step[0], cell.cellIndex + step[1]];
    while (table.rows[line] && table.rows[line].cells[column]) {
      const next = table.rows[line].cells[column];
      if (next.tagName === "TD" && next.dataset.path !== undefined) {
        cell.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
        return;
      }
      if (line === 0 || column === 0) return;
      [line, column] = [line + step[0], column + step[1]];
    }
  };
  if (data.map && data.map.stacks.length) {
    for (const stack of data.map.stacks) byId("map").append(make("h3", { class: "path", text: stack.name || "outside the stacks" }), mapTable(stack));
    const states = new Set(data.map.stacks.flatMap((stack) => stack.rows.flatMap((row) => row.cells.map((cell) => cell[1]))));
    const legend = byId("legend");
    if (data.map.norms) {
      legend.append("gradient norm " + norm(data.map.norms[0]) + " ");
      for (let level = 0; level < 8; level += 1) legend.append(make("span", { class: "scale level-" + level }));
      legend.append(" " + norm(data.map.norms[1]) + " (log scale)  ");
    }
    for (const [state, sign] of Object.entries(data.map.signs)) {
      if (states.has(state)) legend.append(" ", make("span", { class: "scale state-" + state, text: sign }), " " + data.map.words[state] + " ");
    }
  } else {
    byId("map").append(make("p", { text: data.map ? "There is no adapter layer." : "Nothing was run: this is a report of the structure alone." }));
  }

  // --- tables ----------------------------------------------------------------------------------

  const tableOf = (heads, rows) => {
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col", text: head })))));
    table.append(make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", { text: cell }))))));
    return table;
  };
  for (const adapter of data.targets) {
    byId("target-tables").append(make("h3", { text: "Adapter " + adapter.adapter + " (" + adapter.type + ")" }));
    byId("target-tables").append(adapter.rows.length ? tableOf(["field", "entry", "modules", "layers", "towers"], adapter.rows) : make("p", { text: "Its config names no targets." }));
  }
  if (!data.targets.length) byId("target-tables").append(make("p", { text: "There is no adapter." }));
  byId("rule-table").append(tableOf(["code", "rule", "outcome", "why"], data.outcomes));
  byId("environment").textContent = shown(Object.entries(data.environment).map(([name, version]) => name + " " + version).join(", "));

  // --- the tree: a row is made when it is first seen --------------------------------------------

  const tree = byId("modules");
  let visibleNodes = null; // null: no filter; else the nodes to show
  let hits = new Set();
  const kids = (node) => (visibleNodes ? (node.k || []).filter((child) => visibleNodes.has(child)) : node.k || []);
  const itemOf = new Map();

  const rowOf = (node) => {
    const label = make("span", { class: "label" });
    const name = node.g ? node.n + (node.g > 1 ? " ×" + node.g : "") : node.n || "(root)";
    label.append(make("span", { class: "name", text: name }), " ", make("span", { class: "type", text: node.t }));
    if (node.s) label.append(" ", make("span", { class: "shape", text: node.s }));
    if (node.w) label.append(" ", make("span", { class: "shape", text: "(tower)" }));
    for (const [trains, text] of node.a || []) label.append(" ", make("span", { class: trains ? "adapter" : "resting", text: (trains ? "◆ " : "◇ ") + text }));
    for (const tie of node.e || []) label.append(" ", make("span", { class: "shape", text: "tied to " + tie }));
    if (node.o) label.append(" ", make("span", { class: "shape", text: "= " + node.o + ", the same object" }));
    for (const [code, severity] of node.f || []) label.append(" ", make("span", { class: "severity-" + severity, text: FLAGS[severity] + " " + code }));
    if (node.inside) label.append(" ", make("span", { class: "severity-" + node.inside, text: FLAGS[node.inside] + " inside" }));
    if (node.d) label.append(" ", make("span", { class: "differs", text: node.d }));
    const copy = make("button", { type: "button", class: "copy", tabindex: "-1", text: "copy path", "aria-label": "copy path" });
    copy.addEventListener("click", (event) => { event.stopPropagation(); copyPath(node, copy); });
    const row = make("div", { class: "row" + (hits.has(node) ? " hit" : "") }, make("span", { class: "fold", "aria-hidden": "true" }), label, copy);
    for (const count of [node.p, node.r]) row.append(make("span", { class: "count", text: count ? human(count) : "", title: count ? exact(count) : "" }));
    return row;
  };
  const itemFor = (node) => {
    const item = make("li", { role: "treeitem", tabindex: "-1" }, rowOf(node));
    item.node = node;
    itemOf.set(node, item);
    if (kids(node).length) setOpen(item, false);
    item.firstChild.addEventListener("click", () => { focusItem(item); toggle(item); });
    return item;
  };
  const setOpen = (item, open) => {
    item.setAttribute("aria-expanded", String(open));
    item.querySelector(".fold").textContent = open ? "▾" : "▸";
  };
  const listOf = (node) => {
    const list = make("ul", { role: "group" });
    const children = kids(node);
    const more = (from) => {
      list.append(...children.slice(from, from + PAGE).map(itemFor));
      list.filled = Math.min(children.length, from + PAGE);
      if (list.filled < children.length) {
        const button = make("button", { type: "button", text: "show " + Math.min(PAGE, children.length - list.filled) + " more of " + children.length });
        const holder = make("li", { role: "none" }, button);
        list.next = () => { holder.remove(); list.next = null; more(list.filled); };
        button.addEventListener("click", () => list.next && list.next());
        list.append(holder);
      }
    };
    more(0);
    return list;
  };
  const open = (item) => {
    if (item.getAttribute("aria-expanded") !== "false") return;
    setOpen(item, true);
    item.append(listOf(item.node));
  };
  const close = (item) => {
    if (item.getAttribute("aria-expanded") !== "true") return;
    setOpen(item, false);
    item.querySelector("ul").remove();
  };
  const toggle = (item) => (item.getAttribute("aria-expanded") === "true" ? close(item) : open(item));

  const focusItem = (item) => {
    const before = tree.querySelector('[tabindex="0"]');
    if (before) before.tabIndex = -1;
    item.tabIndex = 0;
    item.focus({ preventScroll: true });
    item.firstChild.scrollIntoView({ block: "nearest" });
  };
  const draw = () => {
    tree.replaceChildren();
    itemOf.clear();
    if (visibleNodes && !visibleNodes.has(data.tree)) return;
    const root = itemFor(data.tree);
    root.tabIndex = 0;
    tree.append(root);
    openDown(root, visibleNodes ? 300 : 40);
  };
  const openDown = (item, budget) => {
    // breadth first while the rows fit the budget; a group of equal blocks and a single adapter layer stay folded
    const queue = [item];
    while (queue.length && budget > 0) {
      const next = queue.shift();
      const children = kids(next.node);
      if (!children.length || (!visibleNodes && (next.node.g || next.node.a)) || children.length > budget) continue;
      open(next);
      budget -= children.length;
      queue.push(...next.querySelectorAll(":scope > ul > [role=treeitem]"));
    }
  };

  const reveal = (path) => {
    const node = byPath.get(path);
    if (!node) return;
    if (visibleNodes && !visibleNodes.has(node)) clearFilter();
    const way = [];
    for (let at = node.parent; at; at = at.parent) way.unshift(at);
    for (const step of [...way, node]) {
      if (!itemOf.has(step) || !itemOf.get(step).isConnected) fillTo(step);
      if (step !== node) open(itemOf.get(step));
    }
    const item = itemOf.get(node);
    hits = new Set([node]);
    for (const row of tree.querySelectorAll(".row.hit")) row.classList.remove("hit");
    item.firstChild.classList.add("hit");
    focusItem(item);
    item.firstChild.scrollIntoView({ block: "center" });
  };
  const fillTo = (node) => {
    const list = itemOf.get(node.parent).querySelector(":scope > ul");
    while (list.next && !(itemOf.has(node) && itemOf.get(node).isConnected)) list.next();
  };

  // --- search and filters ----------------------------------------------------------------------

  const filter = () => {
    const words = byId("search").value.trim().toLowerCase();
    const flagged = byId("only-flagged").checked;
    const adapters = byId("only-adapters").checked;
    if (!words && !flagged && !adapters) {
      visibleNodes = null;
      hits = new Set();
      byId("matches").textContent = "";
      draw();
      return;
    }
    hits = new Set(all.filter((node) => !node.g && (!flagged || node.flagged) && (!adapters || node.adapted) &&
      (!words || node.path.toLowerCase().includes(words) || node.t.toLowerCase().includes(words))));
    visibleNodes = new Set();
    for (const node of hits) for (let at = node; at && !visibleNodes.has(at); at = at.parent) visibleNodes.add(at);
    byId("matches").textContent = exact(hits.size) + (hits.size === 1 ? " module" : " modules");
    draw();
  };
  const clearFilter = () => {
    byId("search").value = "";
    byId("only-flagged").checked = byId("only-adapters").checked = false;
    filter();
  };
  let waiting;
  byId("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
  byId("only-flagged").addEventListener("change", filter);
  byId("only-adapters").addEventListener("change", filter);
  byId("collapse").addEventListener("click", () => { for (const item of [...tree.querySelectorAll(":scope > li > ul > li")]) close(item); });

  // --- keyboard --------------------------------------------------------------------------------

  const items = () => [...tree.querySelectorAll("[role=treeitem]")];
  tree.addEventListener("keydown", (event) => {
    const item = event.target.closest("[role=treeitem]");
    if (!item || event.target.tagName === "BUTTON" || event.ctrlKey || event.metaKey || event.altKey) return;
    const expanded = item.getAttribute("aria-expanded");
    const acts = {
      ArrowDown: () => move(item, 1),
      ArrowUp: () => move(item, -1),
      ArrowRight: () => (expanded === "false" ? open(item) : expanded === "true" && move(item, 1)),
      ArrowLeft: () => {
        const parent = item.parentElement.closest("[role=treeitem]");
        if (expanded === "true") close(item);
        else if (parent) focusItem(parent);
      },
      Home: () => focusItem(items()[0]),
      End: () => focusItem(items().pop()),
      Enter: () => toggle(item),
      " ": () => toggle(item),
      c: () => copyPath(item.node, item.querySelector(".copy")),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  });
  const move = (item, step) => {
    const list = items();
    const next = list[list.indexOf(item) + step];
    if (next) focusItem(next);
  };

  const copyPath = (node, button) => {
    const done = () => {
      button.textContent = "copied";
      setTimeout(() => { button.textContent = "copy path"; }, 1200);
    };
    const byHand = () => {
      const field = make("textarea", { class: "skip" });
      field.value = node.path;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      done();
    };
    if (navigator.clipboard) navigator.clipboard.writeText(node.path).then(done, byHand);
    else byHand();
  };

  draw();
  document.documentElement.dataset.ready = "yes";
})();
