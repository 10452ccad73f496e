// Precision over recall of one class at a time, read off at any recall.

const MARGIN = { left: 40, right: 12, top: 10, bottom: 34 };
const TICKS = [0, 20, 40, 60, 80, 100];

function curvesPanel(curves) {
  const byName = new Map();
  for (const curve of curves) byName.set(curve.name, [...(byName.get(curve.name) ?? []), curve]);
  const names = [...byName.keys()];
  const readings = element("tbody");
  const at = element("output", { class: "number" });
  const recall = element("input", {
    type: "range", min: 0, max: 100, value: 50, "aria-label": "Recall in percent", oninput: read,
  });
  const plot = curvePlot((share) => {
    recall.value = Math.round(100 * share);
    read();
  });
  const choice = element("select", { id: "curve-class", onchange: select });
  choice.append(...names.map((name, i) => element("option", { value: i }, name)));
  const shown = () => byName.get(names[Number(choice.value)]);

  function select() {
    plot.show(shown(), names[Number(choice.value)]);
    read();
  }

  function read() {
    const value = Number(recall.value);
    at.textContent = `${value} %`;
    readings.replaceChildren(...shown().map((curve, i) => reading(curve, i, value)));
    plot.mark(value);
  }

  select();
  const scored = curves.some((curve) => curve.scores);
  const told = scored ? "; the score is the lowest that reaches the recall" : "";
  return element("div", { class: "stack" },
    element("div", { class: "tools" }, element("label", { for: "curve-class" }, "Class"), choice),
    element("div", { class: "beside" },
      element("div", {},
        plot.drawing,
        element("div", { class: "recall" }, element("span", { class: "quiet" }, "Recall"), recall, at)),
      element("div", {},
        readingsTable(readings),
        element("p", { class: "quiet" }, `Precision in percent, interpolated on 101 recalls${told}.`)),
    ),
  );
}

function readingsTable(body) {
  const label = "Values at the recall chosen";
  const heads = ["IoU", "precision", "score", "mean (AP)"].map((text, i) =>
    element("th", { scope: "col", class: i ? "number" : "text" }, text));
  const head = element("thead", {}, element("tr", {}, ...heads));
  return scrollBox(label, element("table", { "aria-label": label }, head, body));
}

function reading(curve, index, recall) {
  const told = curve.precision.filter(isNumber);
  const mean = told.length ? told.reduce((sum, value) => sum + value, 0) / told.length : null;
  const percent = formatterOf([0.5, 50]);
  const score = formatterOf([0.5])(curve.scores?.[recall]);
  const cells = [percent(curve.precision[recall]), score, percent(mean)];
  return element("tr", {},
    element("th", { scope: "row", class: "text" }, sample(index), ` ${curve.iou}`),
    ...cells.map((cell) => element("td", { class: "number" }, cell)));
}

function sample(index) {
  const line = svg("path", { class: `line curve-${index % 3}`, d: "M0 4H28" });
  const size = { viewBox: "0 0 28 8", width: 28, height: 8 };
  return svg("svg", { class: "sample", "aria-hidden": "true", ...size }, line);
}

// A drawing that fits itself to its width; pointed(share) is told where on the recall axis.
function curvePlot(pointed) {
  const drawing = svg("svg", { class: "plot", role: "img", onpointermove: point, onpointerdown: point });
  const marks = svg("g", { class: "cursor" });
  let curves = [];
  let marked = 0;

  function point(event) {
    const { left, width } = drawing.getBoundingClientRect();
    const share = (event.clientX - left - MARGIN.left) / (width - MARGIN.left - MARGIN.right);
    pointed(clamp(share, 0, 1));
  }

  function draw() {
    const size = { width: drawing.clientWidth, height: drawing.clientHeight };
    if (!size.width) return; // in a section that is not open
    const lines = curves.map((curve, i) => curveLine(curve, i, size));
    const note = curves.some((curve) => curve.precision.some(isNumber)) ? "" : undefinedNote(size);
    drawing.replaceChildren(...axes(size), ...lines, marks, note);
    mark(marked);
  }

  function mark(recall) {
    marked = recall;
    const size = { width: drawing.clientWidth, height: drawing.clientHeight };
    if (!size.width) return;
    const x = across(recall, size);
    const dots = curves.flatMap(({ precision }, i) => {
      if (!isNumber(precision[recall])) return [];
      return [svg("circle", { class: `curve-${i % 3}`, cx: x, cy: down(precision[recall], size), r: 4 })];
    });
    const rule = svg("line", { x1: x, x2: x, y1: down(100, size), y2: down(0, size) });
    marks.replaceChildren(rule, ...dots);
  }

  new ResizeObserver(draw).observe(drawing);
  return {
    drawing,
    mark,
    show(chosen, name) {
      curves = chosen;
      drawing.setAttribute("aria-label", `Precision over recall, ${name}`);
      draw();
    },
  };
}

function across(recall, { width }) {
  return MARGIN.left + (recall / 100) * (width - MARGIN.left - MARGIN.right);
}

function down(precision, { height }) {
  return MARGIN.top + (1 - precision / 100) * (height - MARGIN.top - MARGIN.bottom);
}

function axes(size) {
  const [left, right, top, bottom] = [across(0, size), across(100, size), down(100, size), down(0, size)];
  const rule = (ends) => svg("line", { class: "grid", ...ends });
  const text = (content, attributes) => svg("text", { "text-anchor": "middle", ...attributes }, content);
  const parts = TICKS.flatMap((value) => {
    const [x, y] = [across(value, size), down(value, size)];
    return [
      rule({ x1: left, x2: right, y1: y, y2: y }),
      rule({ x1: x, x2: x, y1: top, y2: bottom }),
      text(String(value), { x: left - 6, y: y + 4, "text-anchor": "end" }),
      text(String(value), { x, y: bottom + 15 }),
    ];
  });
  const turned = `translate(10 ${(top + bottom) / 2}) rotate(-90)`;
  const names = [
    text("recall %", { x: (left + right) / 2, y: size.height - 4 }),
    text("precision %", { x: 0, y: 0, transform: turned }),
  ];
  return [...parts, ...names];
}

function undefinedNote(size) {
  const place = { x: across(50, size), y: down(50, size), "text-anchor": "middle", class: "undefined" };
  return svg("text", place, "not defined: no truth");
}

// Where precision is undefined the line is broken.
function curveLine({ precision }, index, size) {
  let path = "";
  let pen = "M";
  precision.forEach((value, recall) => {
    if (isNumber(value)) path += `${pen}${across(recall, size).toFixed(1)} ${down(value, size).toFixed(1)}`;
    pen = isNumber(value) ? "L" : "M";
  });
  return svg("path", { class: `line curve-${index % 3}`, d: path });
}
