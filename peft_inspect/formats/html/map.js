// --- gradient map ----------------------------------------------------------------------------

const mapCell = (stack, row, cell) => {
  const [block, state, size, level, arrived, total, path] = cell;
  const known = state === "ok";
  const said = row.label + " [" + row.adapter + "]" + (stack.name ? " layer " + block : "") + ": " + data.map.words[state] + (size === null ? "" : ", norm " + norm(size)) + ", " + arrived + "/" + total + " parameters";
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
const called = (row) => row.label + (data.targets.length > 1 ? " [" + row.adapter + "]" : "");
const mapTable = (stack) => {
  const blocks = Math.max(...stack.rows.flatMap((row) => row.cells.map((cell) => cell[0]))) + 1;
  const table = make("table", { class: "map", role: "grid", "aria-label": "gradients of " + (stack.name || "modules outside the stacks") });
  const heads = make("tr", {}, make("th"));
  for (let block = 0; block < blocks; block += 1) heads.append(make("th", { text: stack.name && block % 5 === 0 ? block : "" }));
  table.append(make("thead", {}, heads));
  const body = make("tbody");
  for (const row of stack.rows) {
    const cells = new Map(row.cells.map((cell) => [cell[0], cell]));
    const line = make("tr", { role: "row" }, make("th", { scope: "row", text: called(row), title: called(row) }));
    for (let block = 0; block < blocks; block += 1) {
      line.append(cells.has(block) ? mapCell(stack, row, cells.get(block)) : make("td", { class: "absent" }));
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
  byId("cell").textContent = "Point at a cell for its value; a click leads to the module. Arrow keys walk, Enter leads there.";
  if (data.map.norms) {
    const [low, high] = data.map.norms;
    legend.append("gradient norm " + (low < high ? norm(low) + " " : ""));
    for (let level = low < high ? 0 : 7; level < 8; level += 1) legend.append(make("span", { class: "scale level-" + level }));
    legend.append(" " + norm(high) + (low < high ? " (log scale)  " : "  "));
  }
  for (const [state, sign] of Object.entries(data.map.signs)) {
    if (states.has(state)) legend.append(" ", make("span", { class: "scale state-" + state, text: sign }), " " + data.map.words[state] + " ");
  }
} else {
  byId("map").append(make("p", { text: data.map ? "There is no adapter layer." : "Nothing was run: this is a report of the structure alone." }));
}
