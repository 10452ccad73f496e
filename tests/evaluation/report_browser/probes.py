"""Scripts that look at a page from within."""

# Text whose contrast with the first opaque ground behind it is under 4.5 (WCAG 2.2, 1.4.3).
WEAK_TEXT = """() => {
  const probe = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const parse = (colour) => {
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = colour;
    probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const weak = [];
  let seen = 0;
  for (const node of document.querySelectorAll("body *:not(script):not(option)")) {
    const own = [...node.childNodes].filter((child) => child.nodeType === Node.TEXT_NODE);
    const text = own.map((child) => child.data).join("").trim();
    if (!text || !node.checkVisibility() || node.disabled) continue;
    const style = getComputedStyle(node);
    const colour = parse(node instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(colour), luminance(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    if (ratio < 4.5) weak.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return [seen, weak];
}"""

# Colour of the upper right corner of a canvas, red to alpha, up to 255. Read off a copy, for
# a browser complains of a canvas that is drawn and read in turns.
CORNER = """(canvas) => {
  const copy = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  copy.drawImage(canvas, canvas.width - 1, 0, 1, 1, 0, 0, 1, 1);
  return [...copy.getImageData(0, 0, 1, 1).data];
}"""
IS_PAINTED = f"(canvas) => ({CORNER})(canvas)[3] > 0"
