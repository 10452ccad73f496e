// Tracks of a video as the player draws them: key, colour, pattern; masks painted on a canvas.

// Colours of Okabe and Ito, which readers with any kind of colour vision tell apart. Beyond seven
// tracks the colours come again with another pattern.
const PALETTE = [
  [0, 114, 178], [230, 159, 0], [0, 158, 115], [213, 94, 0], [204, 121, 167], [86, 180, 233], [240, 228, 66],
];
const PATTERNS = [
  () => true,
  (x, y) => (x + y) % 6 < 3,
  (x, y) => x % 6 < 3,
  (x, y) => y % 6 < 3,
  (x, y) => x % 4 < 2 && y % 4 < 2,
];
const STRANGER = { colour: [140, 145, 152], pattern: (x, y) => (x + y) % 8 < 2 || Math.abs(x - y) % 8 < 2 };
const STATES = { f: "found", s: "switched", m: "missed", x: "false" };
const CANVAS_WIDTH = 720; // pixels to which small masks are enlarged
const KEY_SIZES = [7.5, 11]; // smallest and largest type of a key, in pixels of the page

// Truths are numbered; a prediction has number and colour of its partner, with a letter from the
// second on (3, 3b, 3c: those on a crowd); predictions without partner are p1, p2, ... in grey.
function tracksOf(video, classNames) {
  const seen = (track, side) => ({
    ...track, side, name: nameOf(track), kind: classNames[track.class] ?? "no class", visible: true,
  });
  const truths = video.truth.map((track, i) => ({
    ...seen(track, "truth"), key: String(i + 1), group: i, ...looks(i), score: null,
  }));
  const partners = new Map();
  let strangers = 0;
  const predictions = video.predictions.map((track) => {
    const shared = seen(track, "prediction");
    if (track.partner === null || !(track.partner in truths)) {
      strangers += 1;
      return { ...shared, ...STRANGER, partner: null, key: `p${strangers}`, group: -strangers };
    }
    const before = partners.get(track.partner) ?? 0;
    partners.set(track.partner, before + 1);
    const { key, colour, pattern } = truths[track.partner];
    return { ...shared, group: track.partner, key: key + (before ? nthLetters(before) : ""), colour, pattern };
  });
  return { truths, predictions };
}

function nameOf(track) {
  return track.crowd ? `${track.label} (crowd)` : track.label;
}

function tellTrack(track) {
  return `${track.side === "truth" ? "Truth" : "Prediction"} ${track.key}: ${track.name}`;
}

// What became of a track in a frame of the video; of crowds nothing is counted.
function stateIn(track, frame) {
  return STATES[track.states[frame]] ?? (track.crowd ? "not counted" : "absent");
}

function looks(index) {
  const round = Math.floor(index / PALETTE.length);
  return { colour: PALETTE[index % PALETTE.length], pattern: PATTERNS[round % PATTERNS.length] };
}

// 1 -> b, 2 -> c, ..., 25 -> z, 26 -> ba
function nthLetters(index) {
  const rest = Math.floor(index / 26);
  return (rest ? nthLetters(rest) : "") + String.fromCharCode(97 + (index % 26));
}

function cssColour([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

// Black or white, whichever reads better on the colour (relative luminance of WCAG).
function inkOn(colour) {
  const [red, green, blue] = colour.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

// Which track lies on top of every pixel: its index in `tracks`, or -1. The one that is lit (or
// null) lies on all others, one that is surer on one that is less, and small ones on large ones.
function ownersOf(video, tracks, frame, lit) {
  const owners = new Int16Array(video.width * video.height).fill(-1);
  const shown = [...tracks.entries()].filter(([, track]) => track.visible && track.masks[frame]);
  const layers = shown.map(([index, track]) => {
    const runs = track.masks[frame];
    return { index, runs, isLit: track === lit, score: track.score ?? 0, area: areaOf(runs) };
  });
  layers.sort((a, b) => a.isLit - b.isLit || a.score - b.score || b.area - a.area);
  for (const { index, runs } of layers) {
    let at = 0;
    runs.forEach((run, i) => {
      if (i % 2) owners.fill(index, at, at + run);
      at += run;
    });
  }
  return owners;
}

function areaOf(runs) {
  return runs.reduce((sum, run, i) => sum + (i % 2 ? run : 0), 0);
}

// Draws one side of a frame: the picture if there is one, the masks, and the key of each track.
// Beside a track that is lit, its partners alone keep their full colour.
function paint(canvas, video, tracks, owners, { picture, lit, keys }) {
  const { width, height } = video;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const layer = document.createElement("canvas");
  layer.width = width;
  layer.height = height;
  const pixels = new ImageData(width, height);
  const centres = new Map();
  const [full, weak] = picture ? [125, 45] : [235, 150];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const owner = owners[i];
      if (owner < 0) continue;
      const track = tracks[owner];
      const edge =
        (x > 0 && owners[i - 1] !== owner) || (x < width - 1 && owners[i + 1] !== owner) ||
        (y > 0 && owners[i - width] !== owner) || (y < height - 1 && owners[i + width] !== owner);
      const alpha = edge ? 255 : track.pattern(x, y) && !track.crowd ? full : weak;
      pixels.data.set(track.colour, 4 * i);
      pixels.data[4 * i + 3] = lit && track.group !== lit.group ? alpha * 0.35 : alpha;
      const sum = centres.get(owner) ?? [0, 0, 0];
      centres.set(owner, [sum[0] + x, sum[1] + y, sum[2] + 1]);
    }
  }
  layer.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(layer, 0, 0, canvas.width, canvas.height);
  for (const [owner, [x, y, count]] of centres) {
    const told = keys && (!lit || tracks[owner].group === lit.group);
    if (told) drawKey(context, tracks[owner], (x / count + 0.5) / width, (y / count + 0.5) / height);
  }
}

function drawKey(context, { key, colour }, x, y) {
  const { width, height } = context.canvas;
  const onPage = context.canvas.clientWidth || width;
  const size = (clamp(onPage / 42, ...KEY_SIZES) * width) / onPage;
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  const half = context.measureText(key).width / 2 + size * 0.35;
  const left = clamp(x * width, half, width - half);
  const top = clamp(y * height, size * 0.7, height - size * 0.7);
  context.fillStyle = cssColour(colour);
  context.strokeStyle = inkOn(colour);
  context.lineWidth = Math.max(1, size / 14);
  context.beginPath();
  context.roundRect(left - half, top - size * 0.65, 2 * half, size * 1.3, size * 0.25);
  context.fill();
  context.stroke();
  context.fillStyle = inkOn(colour);
  context.fillText(key, left, top + size * 0.06);
}

// A canvas of one side with its title; light(track or null) is told what the pointer is on.
function canvasSide(title, video, tracks, light) {
  const scale = Math.max(1, Math.round(CANVAS_WIDTH / video.width));
  const canvas = element("canvas", {
    width: video.width * scale,
    height: video.height * scale,
    role: "img",
    onpointerdown: (event) => light(trackAt(event)),
    onpointermove: (event) => light(trackAt(event)),
    // A finger that is lifted leaves, too, but what it pointed at stays named.
    onpointerleave: (event) => event.pointerType === "mouse" && light(null),
  });
  let owners = null; // with none lit: what is lit must not hide smaller ones from the pointer

  function trackAt(event) {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const x = clamp(Math.floor((video.width * (event.clientX - left)) / width), 0, video.width - 1);
    const y = clamp(Math.floor((video.height * (event.clientY - top)) / height), 0, video.height - 1);
    return tracks[owners?.[y * video.width + x] ?? -1] ?? null;
  }

  return {
    figure: element("figure", {}, element("figcaption", {}, title), canvas),
    draw(frame, look) {
      owners = ownersOf(video, tracks, frame, null);
      const onTop = tracks.includes(look.lit) ? ownersOf(video, tracks, frame, look.lit) : owners;
      paint(canvas, video, tracks, onTop, look);
      const drawn = tracks.filter((track) => track.visible && track.masks[frame]);
      const names = drawn.map((track) => `${track.key} ${track.name}`).join(", ") || "nothing";
      canvas.setAttribute("aria-label", `${title}, frame ${video.frames[frame].index}: ${names}`);
    },
  };
}
