// Headline figures, tables and notes; the bars of the classes; the ranking of the videos.

function overviewPanel(payload) {
  const panel = element("div", { class: "stack" });
  if (payload.figures.length) panel.append(figureList(payload.figures));
  for (const { title, columns, rows } of payload.tables) {
    const lines = rows.map((cells) => ({ cells }));
    const table = lines.length
      ? sortableTable({ label: title, columns, rows: lines })
      : element("p", { class: "empty" }, "No rows.");
    panel.append(element("section", {}, element("h2", {}, title), table));
  }
  if (payload.notes.length) {
    const notes = payload.notes.map((note) => element("li", {}, note));
    panel.append(element("section", {}, element("h2", {}, "Notes"), element("ul", { class: "notes" }, ...notes)));
  }
  if (!panel.childElementCount) panel.append(element("p", { class: "empty" }, "Nothing was measured."));
  return panel;
}

function figureList(figures) {
  const list = element("dl", { class: "figures" });
  for (const { name, value, unit, help } of figures) {
    const format = formatterOf(figures.filter((other) => other.unit === unit).map((other) => other.value));
    const number = element("dd", { class: "figure-value" }, format(value));
    if (unit && isNumber(value)) number.append(element("span", { class: "unit" }, unit));
    const told = help ? element("dd", { class: "figure-help", title: help }, help) : null;
    list.append(element("div", {}, element("dt", { title: name }, ...breakable(name)), number, told));
  }
  return list;
}

// A name such as image/FG-ARI_empty_is_1 may be broken where its parts meet.
function breakable(name) {
  return name.split(/(?<=[/_])/).flatMap((part) => [part, element("wbr")]);
}

function classesPanel({ columns, rows }, percent) {
  const first = rows.map((row) => row.values[0] ?? null);
  const scale = endOfScale(first, percent);
  const table = sortableTable({
    label: "Classes",
    columns: ["class", ...columns],
    rows: rows.map((row) => ({ cells: [row.name, ...row.values] })),
    bar: columns.length ? 1 : null,
    scale,
  });
  const unit = percent && scale === 100 ? " %" : "";
  const full = ` A full bar is ${columns[0]} ${formatterOf([scale])(scale)}${unit}; ${NOT_DEFINED} is not defined.`;
  const told = `${plural(rows.length, "class", "classes")}.${columns.length ? full : ""}`;
  return element("div", { class: "stack" }, element("p", { class: "quiet" }, told), table);
}

function rankingPanel({ columns, rows }, percent, openVideo) {
  const first = rows.map((row) => row.values[0] ?? null);
  const playable = rows.filter((row) => row.video !== null).length;
  const table = sortableTable({
    label: "Videos",
    columns: ["#", "video", ...columns],
    rows: rows.map((row, i) => ({
      cells: [i + 1, row.name, ...row.values],
      open: row.video === null ? null : () => openVideo(row.video),
    })),
    bar: columns.length ? 2 : null,
    scale: endOfScale(first, percent),
    name: 1,
  });
  const links = `Names that are links open in the player (${playable} of ${rows.length}).`;
  const where = playable ? links : "None of them is in the player.";
  const told = `${plural(rows.length, "video")}, the worst first. ${where}`;
  return element("div", { class: "stack" }, element("p", { class: "quiet" }, told), table);
}
