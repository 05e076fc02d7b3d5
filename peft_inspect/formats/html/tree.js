// --- the tree: a row is made when it is first seen --------------------------------------------

const tree = byId("modules");
let visibleNodes = null; // null: no filter; else the nodes to show
let hits = new Set();
const kids = (node) => (visibleNodes ? (node.k || []).filter((child) => visibleNodes.has(child)) : node.k || []);
const itemOf = new Map();

const CHANGES = { "+": "added", "-": "removed", "~": "changed" };
const heads = data.columns.flatMap((column) => (column === "params" ? ["parameters", "trainable"] : [column]));
for (const head of heads) byId("heads").append(make("span", { class: head, text: head }));
const told = () => { // where the columns leave no room for the names, each row tells its values below its name
  const columns = heads.reduce((sum, head) => sum + (head === "path" ? 41 : head === "shape" ? 17 : 13), 0);
  byId("tree").classList.toggle("told", byId("tree").clientWidth / 7.9 < columns + 60);
};
told();
addEventListener("resize", told);

const withinOf = ({ within: [trained, resting] }) => (trained ? "◆ " + exact(trained) + " inside" : "") + (trained && resting ? ", " : "") + (resting ? "◇ " + exact(resting) + " inside" : "");
const rowOf = (node) => {
  const label = make("span", { class: "label" });
  const name = node.g ? node.n + (node.g > 1 ? " ×" + node.g : "") : node.n || "(root)";
  if (node.c) label.append(make("span", { class: "change-" + CHANGES[node.c], text: node.c, title: CHANGES[node.c], "aria-label": CHANGES[node.c] }), " ");
  label.append(make("span", { class: "name", text: name }), " ", make("span", { class: "type", text: node.t }));
  if (node.s) label.append(" ", make("span", { class: "shape", text: node.s }));
  if (node.w) label.append(" ", make("span", { class: "shape", text: "(tower)" }));
  for (const [trains, text] of node.a || []) label.append(" ", make("span", { class: trains ? "adapter" : "resting", text: (trains ? "◆ " : "◇ ") + text }));
  if (!(node.a || []).length && node.within.some(Boolean)) label.append(" ", make("span", { class: "within " + (node.within[0] ? "adapter" : "resting"), text: withinOf(node) }));
  for (const tie of node.e || []) label.append(" ", make("span", { class: "shape", text: "tied to " + tie }));
  if (node.o) label.append(" ", make("span", { class: "shape", text: "= " + node.o + ", the same object" }));
  for (const [code, severity] of node.f || []) label.append(" ", make("span", { class: "severity-" + severity, text: FLAGS[severity] + " " + code }));
  if (node.inside) label.append(" ", make("span", { class: "severity-" + node.inside, text: FLAGS[node.inside] + " inside" }));
  if (node.x) label.append(" ", make("span", { class: "change-changed", text: node.x }));
  if (node.changes && !node.c) label.append(" ", make("span", { class: "change-changed", text: "~ inside" }));
  if (node.d) label.append(" ", make("span", { class: "differs", text: node.d }));
  const copy = make("button", { type: "button", class: "copy", tabindex: "-1", text: "copy path", "aria-label": "copy path" });
  copy.addEventListener("click", (event) => { event.stopPropagation(); copyPath(node, copy); });
  const cells = make("span", { class: "cells" });
  let at = 0;
  for (const column of data.columns) {
    if (column === "params") {
      for (const [head, count] of [["parameters", node.p], ["trainable", node.r]]) {
        cells.append(make("span", { class: "count", "data-head": head, text: count ? human(count) : "", title: count ? exact(count) : "" }));
      }
    } else cells.append(make("span", { class: "count " + column, "data-head": column, text: node.v[at++] }));
  }
  return make("div", { class: "row" + (hits.has(node) ? " hit" : "") }, make("span", { class: "fold", "aria-hidden": "true" }), label, copy, cells);
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
  if (!data.tree) {
    tree.replaceWith(make("p", { text: "No module path matches." }));
    return;
  }
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
  const changed = byId("only-changed").checked;
  if (!words && !flagged && !adapters && !changed) {
    visibleNodes = null;
    hits = new Set();
    byId("matches").textContent = "";
    draw();
    return;
  }
  hits = new Set(all.filter((node) => !node.g && (!flagged || node.flagged) && (!adapters || node.adapted) && (!changed || node.c) &&
    (!words || node.path.toLowerCase().includes(words) || node.t.toLowerCase().includes(words))));
  visibleNodes = new Set();
  for (const node of hits) for (let at = node; at && !visibleNodes.has(at); at = at.parent) visibleNodes.add(at);
  byId("matches").textContent = exact(hits.size) + (hits.size === 1 ? " module" : " modules");
  draw();
};
const clearFilter = () => {
  byId("search").value = "";
  byId("only-flagged").checked = byId("only-adapters").checked = byId("only-changed").checked = false;
  filter();
};
let waiting;
byId("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
byId("only-flagged").addEventListener("change", filter);
byId("only-adapters").addEventListener("change", filter);
byId("only-changed").addEventListener("change", filter);
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

const copyPath = (node, button) => copyText(node.path, button);

draw();
document.documentElement.dataset.ready = "yes";
