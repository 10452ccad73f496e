// The player: which video is open, and how the parts of a playback stand on the page.

const ICONS = {
  back: "M11 3 5 8l6 5z",
  forward: "M5 3l6 5-6 5z",
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
};

// chosen(index) is called when the reader picks a video; the page answers with open(index).
function playerPanel({ videos, ranking, classNames }, chosen) {
  const stage = element("div");
  const choice = element("select", { id: "player-video", onchange: () => chosen(Number(choice.value)) });
  choice.append(...videos.map((video, i) => element("option", { value: i }, video.name)));
  const turn = (by) => () => chosen((Number(choice.value) + by + videos.length) % videos.length);
  const single = videos.length < 2;
  let playback = null;
  let opened = null;

  function open(index) {
    if (index === opened) return;
    playback?.stop();
    opened = index;
    choice.value = index;
    playback = new Playback(videos[index], classNames);
    const row = ranking.rows.find((each) => each.video === index);
    stage.replaceChildren(playbackLayout(playback, row ? measures(ranking, row) : null));
    playback.show(0);
  }

  const tools = element("div", { class: "tools" },
    element("label", { for: "player-video" }, "Video"),
    choice,
    wordButton("Previous", turn(-1), { disabled: single, "aria-label": "Previous video" }),
    wordButton("Next", turn(1), { disabled: single, "aria-label": "Next video" }),
  );
  return {
    panel: element("div", { class: "stack player" }, tools, stage),
    open,
    opened: () => opened,
    stop: () => playback?.stop(),
    key: (event) => playback?.key(event),
  };
}

function measures({ columns, rows }, { values }) {
  const items = columns.map((column, i) => {
    const value = values[i] ?? null;
    const format = formatterOf(rows.map((row) => row.values[i]));
    const text = typeof value === "string" ? value : format(value);
    return element("div", {}, element("dt", {}, column), element("dd", { class: "number" }, text));
  });
  return element("dl", { class: "facts" }, ...items);
}

function playbackLayout(playback, facts) {
  const { video, tracks, sides, all } = playback;
  const counts = [plural(tracks.truths.length, "truth"), plural(tracks.predictions.length, "prediction")];
  const told = element("p", { class: "quiet" }, `${counts.join(", ")}, ${framesShown(video)}.`);
  const upright = video.height > video.width ? " upright" : "";
  const pictures = element("div", { class: `sides${upright}` }, ...sides.map((side) => side.figure));
  const timelineBox = scrollBox("Timeline of the tracks", playback.bars.chart);
  timelineBox.classList.add("tall");
  const keys = "Keys: ← → step, space plays, Home and End, n and p go to the next and previous confusion.";
  const parts = [
    element("div", { class: "summary" }, told, facts),
    video.frames.length ? pictures : emptyNote("No frame of this video is in the report."),
    playback.status,
    video.frames.length ? stepControls(playback) : null,
    choiceControls(playback),
    stateLegend(),
    all.length ? timelineBox : emptyNote("No tracks."),
    element("p", { class: "quiet keys" }, keys),
  ];
  return element("div", { class: "stack" }, ...parts);
}

function framesShown({ frames, length }) {
  if (frames.length === length) return plural(length, "frame");
  return `${frames.length} of ${plural(length, "frame")} shown, marked on the axis`;
}

function stepControls(playback) {
  return element("div", { class: "controls" },
    iconButton("Previous frame", ICONS.back, () => playback.step(-1)),
    playback.playButton,
    iconButton("Next frame", ICONS.forward, () => playback.step(1)),
    playback.slider,
    playback.count,
  );
}

function choiceControls(playback) {
  const score = scoreField(playback.tracks.predictions, (least) =>
    playback.choose((track) => (track.score ?? least) >= least));
  const choose = (visible) => () => {
    score?.clear();
    playback.choose(visible);
  };
  const confusions = [
    wordButton("Previous confusion", () => playback.jumpToConfusion(-1)),
    wordButton("Next confusion", () => playback.jumpToConfusion(1)),
  ];
  const drawn = [
    element("span", { class: "quiet" }, "Predictions"),
    wordButton("all", choose(() => true)),
    wordButton("with partner", choose((track) => track.partner !== null)),
    wordButton("none", choose(() => false)),
    score?.label ?? null,
    element("label", { class: "quiet" }, playback.keyBox, "numbers"),
  ];
  return element("div", { class: "tools" },
    element("div", { class: "tools" }, ...confusions),
    element("div", { class: "tools", role: "group", "aria-label": "What is drawn" }, ...drawn),
  );
}

// A field for the least score to show, or null where no prediction has one.
function scoreField(predictions, chosen) {
  if (!predictions.some((track) => isNumber(track.score))) return null;
  const field = element("input", {
    type: "number",
    step: 0.05,
    placeholder: "any",
    class: "short",
    oninput: () => chosen(field.value === "" ? -Infinity : field.valueAsNumber),
  });
  return {
    label: element("label", { class: "quiet" }, "score at least ", field),
    clear: () => (field.value = ""),
  };
}

function wordButton(text, onclick, more = {}) {
  return element("button", { type: "button", class: "plain", onclick, ...more }, text);
}

function iconButton(name, shape, onclick) {
  return element("button", { type: "button", class: "icon", "aria-label": name, title: name, onclick }, icon(shape));
}

function emptyNote(text) {
  return element("p", { class: "empty" }, text);
}
