// Elements and numbers. What the payload says reaches the page as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const NOT_DEFINED = "–";

// element("button", {class: "plain", onclick: f}, "text", child): functions become listeners,
// true and false set or leave out an attribute.
function element(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

// A box that scrolls by itself, reachable by the keyboard; its right edge fades while more is there.
function scrollBox(label, ...children) {
  const attributes = { class: "scroll", role: "region", tabindex: 0, "aria-label": label };
  const box = element("div", attributes, ...children);
  const mark = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  box.addEventListener("scroll", mark, { passive: true });
  new ResizeObserver(mark).observe(box);
  return box;
}

function icon(path) {
  const shape = svg("path", { d: path });
  return svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" }, shape);
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

// Numbers that stand in one column share their digits: whole numbers as such, fractions of one
// with three decimals, all others with two.
function formatterOf(values) {
  const numbers = values.filter(isNumber);
  const largest = Math.max(0, ...numbers.map(Math.abs));
  const digits = numbers.every(Number.isInteger) ? 0 : largest <= 1 ? 3 : 2;
  const format = new Intl.NumberFormat("en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
    useGrouping: "min2",
  });
  return (value) => (isNumber(value) ? format.format(value).replace("-", "−") : NOT_DEFINED);
}

// The end of the axis for values of a column: of percentages 100, of fractions 1.
function endOfScale(values, percent) {
  const largest = Math.max(0, ...values.filter(isNumber));
  if (percent && largest <= 100) return 100;
  return largest <= 1 ? 1 : largest;
}

function plural(count, one, many = one + "s") {
  return `${count} ${count === 1 ? one : many}`;
}
