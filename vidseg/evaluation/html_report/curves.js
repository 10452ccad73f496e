// Precision over recall of one class at a time, read off at any recall.

const MARGIN = { left: 40, right: 12, top: 10, bottom: 34 };
const RECALLS = 101;

function curvesPanel(curves) {
  const byName = new Map();
  for (const curve of curves) byName.set(curve.name, [...(byName.get(curve.name) ?? []), curve]);
  const names = [...byName.keys()];
  let shown = byName.get(names[0]);

  const plot = svg("svg", { class: "plot", role: "img", onpointermove: read, onpointerdown: read });
  const readings = element("tbody");
  const recall = element("input", {
    type: "range", min: 0, max: RECALLS - 1, value: 50, "aria-label": "Recall in percent", oninput: update,
  });
  const at = element("output", { class: "number" });
  const choice = element("select", { id: "curve-class", onchange: () => select(choice.value) });
  names.forEach((name, i) => choice.append(element("option", { value: i }, name)));

  function select(index) {
    shown = byName.get(names[index]);
    plot.setAttribute("aria-label", `Precision over recall, ${names[index]}`);
    draw();
    update();
  }

  function draw() {
    const width = plot.clientWidth;
    const height = plot.clientHeight;
    if (width && height) plot.replaceChildren(...axes(width, height), ...shown.map((curve, i) => line(curve, i, width, height)), cursor());
  }

  function update() {
    const r = Number(recall.value);
    at.textContent = `${r} %`;
    readings.replaceChildren(...shown.map((curve, i) => reading(curve, i, r)));
    place(r);
  }

  function place(r) {
    const mark = plot.querySelector(".cursor");
    if (!mark) return;
    const width = plot.clientWidth;
    const height = plot.clientHeight;
    const x = across(r, width);
    const rule = svg("line", { x1: x, x2: x, y1: MARGIN.top, y2: height - MARGIN.bottom });
    const dots = shown
      .map((curve, i) => [curve.precision[r], i])
      .filter(([value]) => isNumber(value))
      .map(([value, i]) => svg("circle", { class: `curve-${i % 3}`, cx: x, cy: down(value, height), r: 4 }));
    mark.replaceChildren(rule, ...dots);
  }

  function read(event) {
    const box = plot.getBoundingClientRect();
    const share = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
    recall.value = Math.round(100 * clamp(share, 0, 1));
    update();
  }

  new ResizeObserver(() => {
    draw();
    place(Number(recall.value));
  }).observe(plot);
  select(0);

  const head = ["IoU", "precision", "score", "mean (AP)"].map((text, i) => element("th", { scope: "col", class: i ? "number" : "text" }, text));
  const table = element("table", { "aria-label": "Values at the recall chosen" }, element("thead", {}, element("tr", {}, ...head)), readings);
  return element(
    "div",
    { class: "stack curves" },
    element("div", { class: "tools" }, element("label", { for: "curve-class" }, "Class"), choice, element("span", { class: "quiet" }, plural(names.length, "curve set"))),
    element(
      "div",
      { class: "beside" },
      element("div", { class: "plot-box" }, plot, element("div", { class: "recall" }, element("span", { class: "quiet" }, "Recall"), recall, at)),
      element("div", {}, scrollBox("Values at the recall chosen", table), element("p", { class: "quiet" }, "Precision in percent, interpolated on 101 recalls; the score is the lowest that reaches the recall.")),
    ),
  );
}

function across(recall, width) {
  return MARGIN.left + (recall / 100) * (width - MARGIN.left - MARGIN.right);
}

function down(precision, height) {
  return MARGIN.top + (1 - precision / 100) * (height - MARGIN.top - MARGIN.bottom);
}

function axes(width, height) {
  const parts = [];
  for (const value of [0, 20, 40, 60, 80, 100]) {
    const x = across(value, width);
    const y = down(value, height);
    parts.push(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
    parts.push(svg("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, String(value)));
    parts.push(svg("line", { class: "grid", x1: x, x2: x, y1: MARGIN.top, y2: height - MARGIN.bottom }));
    parts.push(svg("text", { x, y: height - MARGIN.bottom + 15, "text-anchor": "middle" }, String(value)));
  }
  const middle = (MARGIN.left + width - MARGIN.right) / 2;
  const centre = (MARGIN.top + height - MARGIN.bottom) / 2;
  parts.push(svg("text", { x: middle, y: height - 4, "text-anchor": "middle" }, "recall %"));
  parts.push(svg("text", { x: 0, y: 0, transform: `translate(10 ${centre}) rotate(-90)`, "text-anchor": "middle" }, "precision %"));
  return parts;
}

function line(curve, index, width, height) {
  let path = "";
  let pen = "M";
  curve.precision.forEach((value, recall) => {
    if (isNumber(value)) path += `${pen}${across(recall, width).toFixed(1)} ${down(value, height).toFixed(1)}`;
    pen = isNumber(value) ? "L" : "M";
  });
  return svg("path", { class: `line curve-${index % 3}`, d: path });
}

function cursor() {
  return svg("g", { class: "cursor" });
}

function reading(curve, index, recall) {
  const sample = svg("svg", { class: "sample", viewBox: "0 0 28 8", width: 28, height: 8, "aria-hidden": "true" }, svg("path", { class: `line curve-${index % 3}`, d: "M0 4H28" }));
  const told = curve.precision.filter(isNumber);
  const mean = told.length ? told.reduce((sum, value) => sum + value, 0) / told.length : null;
  const percent = formatterOf([0.5, 50]);
  const score = curve.scores ? curve.scores[recall] : null;
  const cells = [percent(curve.precision[recall]), formatterOf([0.5])(score), percent(mean)];
  return element("tr", {}, element("th", { scope: "row", class: "text" }, sample, ` ${curve.iou}`), ...cells.map((cell) => element("td", { class: "number" }, cell)));
}
