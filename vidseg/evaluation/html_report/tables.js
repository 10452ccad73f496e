// Tables that sort by every column and can be narrowed by name.

const FILTER_FROM = 13; // rows from which a table has a field to narrow it

// columns: names; rows: [{cells, open}] where `open` is called for a click on the name, or null.
// bar: index of the column that is drawn as a bar, with `scale` the value of a full one.
// name: index of the column that stays in view when the table scrolls sideways.
function sortableTable({ label, columns, rows, bar = null, scale = 1, name = 0 }) {
  const kinds = columns.map((_, i) => kindOf(rows.map((row) => row.cells[i]), i === name));
  const formats = columns.map((_, i) => formatterOf(rows.map((row) => row.cells[i])));
  const body = element("tbody");
  const lines = rows.map((row, order) => ({ order, row, line: tableLine(row) }));
  const heads = columns.map((column, i) => {
    const button = element("button", { type: "button", onclick: () => sortBy(i) }, column, arrow());
    const classes = `${kinds[i]}${i === name ? " name" : ""}${i === bar ? " bar" : ""}`;
    return element("th", { scope: "col", class: classes, "aria-sort": "none" }, button);
  });
  let sorted = { column: null, direction: 1 };

  function tableLine({ cells, open = null }) {
    const line = element("tr", open ? { class: "opens", onclick: open } : {});
    cells.forEach((cell, i) => line.append(tableCell(cell, i, open)));
    return line;
  }

  function tableCell(cell, i, open) {
    if (i === name) {
      const text = cell === null ? NOT_DEFINED : String(cell);
      const button = () => element("button", { type: "button", class: "link", title: text }, text);
      const content = open ? button() : element("span", { title: text }, text);
      return element("th", { scope: "row", class: `name ${kinds[i]}` }, content);
    }
    if (kinds[i] === "text") return element("td", { class: "text" }, cell === null ? NOT_DEFINED : String(cell));
    const shown = typeof cell === "string" ? cell : formats[i](cell);
    if (i !== bar) return element("td", { class: "number" }, shown);
    const fill = element("span", { class: "fill" });
    fill.style.width = `${100 * clamp((cell ?? 0) / scale, 0, 1)}%`;
    const rail = element("span", { class: "rail", "aria-hidden": "true" }, fill);
    const line = element("span", { class: "bar-line" }, rail, element("span", {}, shown));
    return element("td", { class: "number bar" }, line);
  }

  // Numbers begin with the largest, names with the first; a third click restores the order given.
  function sortBy(column) {
    const first = kinds[column] === "number" ? -1 : 1;
    if (sorted.column !== column) sorted = { column, direction: first };
    else if (sorted.direction === first) sorted = { column, direction: -first };
    else sorted = { column: null, direction: 1 };
    heads.forEach((head, i) => {
      const direction = sorted.direction === 1 ? "ascending" : "descending";
      head.setAttribute("aria-sort", i === sorted.column ? direction : "none");
    });
    arrange();
  }

  function arrange() {
    const { column, direction } = sorted;
    const compare = (a, b) => {
      if (column === null) return a.order - b.order;
      const rank = compareCells(a.row.cells[column], b.row.cells[column], direction);
      return rank || a.order - b.order;
    };
    body.replaceChildren(...[...lines].sort(compare).map(({ line }) => line));
  }

  arrange();
  const head = element("thead", {}, element("tr", {}, ...heads));
  const table = element("table", { "aria-label": label }, head, body);
  const box = scrollBox(label, table);
  if (bar === null) box.classList.add("fitted");
  if (rows.length < FILTER_FROM || kinds[name] !== "text") return box;
  return element("div", {}, nameFilter(label, lines, (item) => String(item.row.cells[name] ?? "")), box);
}

function nameFilter(label, lines, textOf) {
  const count = element("output", { class: "quiet" }, `${lines.length} rows`);
  const field = element("input", {
    type: "search",
    placeholder: "Filter by name",
    "aria-label": `Filter ${label} by name`,
    oninput: () => {
      const wanted = field.value.trim().toLowerCase();
      let left = 0;
      for (const item of lines) {
        item.line.hidden = !textOf(item).toLowerCase().includes(wanted);
        left += item.line.hidden ? 0 : 1;
      }
      count.textContent = wanted ? `${left} of ${lines.length} rows` : `${lines.length} rows`;
    },
  });
  return element("div", { class: "tools" }, field, count);
}

function arrow() {
  return element("span", { class: "arrow", "aria-hidden": "true" });
}

// A column without any value counts as one of numbers, unless it is the one of names.
function kindOf(cells, names) {
  const told = cells.filter((cell) => cell !== null);
  const numbers = told.every((cell) => typeof cell === "number");
  return numbers && (told.length || !names) ? "number" : "text";
}

// What is undefined comes last in either direction.
function compareCells(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return direction * (a - b);
  return direction * String(a).localeCompare(String(b), "en", { numeric: true });
}
