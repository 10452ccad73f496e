// One bar per track over all frames of a video: found, switched, missed, false.

const CELLS_UP_TO = 120; // frames up to which single cells are marked off

// calls: {jump(frame), changed(), light(track or null), tell(text)}
function timeline(video, { truths, predictions }, calls) {
  const length = Math.max(video.length, 1);
  const boxes = new Map();
  const lines = new Map();
  const rows = element("div", { class: "rows" });
  for (const track of inOrder(truths, predictions)) rows.append(trackRow(track));
  const axis = frameAxis(video, length);
  const head = element("div", { class: "row axis-row" }, element("span", { class: "quiet" }, "frame"), axis);
  const chart = element("div", { class: "timeline" }, head, rows);
  chart.style.setProperty("--cell", 1 / length);
  if (length > CELLS_UP_TO) chart.classList.add("fine");

  function trackRow(track) {
    const told = tellTrack(track);
    const box = element("input", {
      type: "checkbox",
      "aria-label": told,
      checked: true,
      onchange: () => {
        track.visible = box.checked;
        calls.changed();
      },
      onfocus: () => calls.light(track),
      onblur: () => calls.light(null),
    });
    boxes.set(track, box);
    const score = isNumber(track.score) ? element("span", { class: "quiet number" }, track.score.toFixed(2)) : null;
    const name = element("span", { class: "track-name" }, track.name);
    const label = element("label", { title: `${told} (${track.kind}, id ${track.id})` }, box, chip(track), name, score);
    const bar = trackBar(track, told);
    const side = track.side === "prediction" && track.partner !== null ? "row partner" : "row";
    const hover = { onpointerenter: () => calls.light(track), onpointerleave: () => calls.light(null) };
    const row = element("div", { class: side, ...hover }, label, bar);
    lines.set(track, row);
    return row;
  }

  function trackBar(track, told) {
    const bar = element("div", { class: "states", role: "img", "aria-label": `${told}. ${inWords(track)}` });
    for (const [state, begin, end] of runsOf(track.states)) {
      if (!(state in STATES)) continue;
      const segment = element("span", { class: `state state-${state}` }, letterOf(state));
      segment.style.left = `${(100 * begin) / length}%`;
      segment.style.width = `${(100 * (end - begin)) / length}%`;
      bar.append(segment);
    }
    const frameAt = (event) => {
      const { left, width } = bar.getBoundingClientRect();
      return clamp(Math.floor((length * (event.clientX - left)) / width), 0, length - 1);
    };
    bar.addEventListener("click", (event) => calls.jump(frameAt(event)));
    bar.addEventListener("pointermove", (event) => {
      const frame = frameAt(event);
      calls.tell(`${told}, frame ${frame}: ${stateIn(track, frame)}`);
    });
    return bar;
  }

  return {
    chart,
    showFrame: (frame) => chart.style.setProperty("--at", frame / length),
    light: (track) => lines.forEach((row, other) => row.classList.toggle("lit", other === track)),
    refresh: () => boxes.forEach((box, track) => (box.checked = track.visible)),
  };
}

// Every truth is followed by the predictions that are its partners; the others come last.
function inOrder(truths, predictions) {
  const order = truths.flatMap((truth, i) => [truth, ...predictions.filter((other) => other.partner === i)]);
  return [...order, ...predictions.filter((other) => other.partner === null)];
}

function chip(track) {
  const mark = element("span", { class: `chip ${track.side}`, "aria-hidden": "true" }, track.key);
  mark.style.backgroundColor = cssColour(track.colour);
  mark.style.color = inkOn(track.colour);
  return mark;
}

function frameAxis(video, length) {
  const axis = element("div", { class: "frame-axis", "aria-hidden": "true" });
  for (const { index } of video.frames) {
    const tick = element("span", { class: "tick" });
    tick.style.left = `${(100 * (index + 0.5)) / length}%`;
    axis.append(tick);
  }
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((each) => length / each <= 8) ?? Math.ceil(length / 8);
  for (let frame = 0; frame < length; frame += step) {
    const text = element("span", { class: "frame-number" }, String(frame));
    text.style.left = `${(100 * (frame + 0.5)) / length}%`;
    axis.append(text);
  }
  return axis;
}

// What is as it should be needs no letter; it is the state without a pattern.
function letterOf(state) {
  return state === "f" ? "" : element("b", {}, state);
}

// "ff.m" -> [["f", 0, 2], [".", 2, 3], ["m", 3, 4]]
function runsOf(states) {
  const runs = [];
  for (let i = 0; i < states.length; i++) {
    const last = runs[runs.length - 1];
    if (last && last[0] === states[i]) last[2] = i + 1;
    else runs.push([states[i], i, i + 1]);
  }
  return runs;
}

function inWords({ states, crowd }) {
  const counts = Object.entries(STATES).map(([state, word]) => [states.split(state).length - 1, word]);
  const told = counts.filter(([count]) => count).map(([count, word]) => `${word} in ${plural(count, "frame")}`);
  return told.length ? told.join(", ") : crowd ? "not counted" : "absent throughout";
}

function stateLegend() {
  const words = {
    f: "found by its partner",
    s: "switched: another than its partner",
    m: "missed: no prediction",
    x: "false: no truth",
  };
  const items = Object.entries(words).map(([state, text]) => {
    const swatch = element("span", { class: `state state-${state}`, "aria-hidden": "true" }, letterOf(state));
    return element("li", {}, swatch, text);
  });
  return element("ul", { class: "legend", "aria-label": "States" }, ...items);
}
