// Starts the page: tabs, colour scheme, keys.

const SCHEMES = ["auto", "light", "dark"];

function start() {
  const payload = JSON.parse(document.getElementById("payload").textContent);
  const facts = document.getElementById("facts");
  for (const [name, value] of payload.facts) {
    facts.append(element("div", {}, element("dt", {}, name), element("dd", {}, String(value ?? NOT_DEFINED))));
  }
  schemeSwitch(document.getElementById("scheme"));
  const percent = payload.figures[0]?.unit === "%";
  const play = (index) => go(`player/${index}`);
  const playFromRanking = (index) => {
    play(index);
    document.getElementById("panel-player").focus(); // the name that was clicked is hidden now
  };
  const player = payload.videos.length ? playerPanel(payload, play) : null;
  const tabs = [["overview", "Overview", overviewPanel(payload)]];
  if (payload.classes?.rows.length) tabs.push(["classes", "Classes", classesPanel(payload.classes, percent)]);
  if (payload.curves.length) tabs.push(["curves", "Precision–recall", curvesPanel(payload.curves)]);
  if (payload.ranking.rows.length) {
    tabs.push(["videos", "Videos", rankingPanel(payload.ranking, percent, playFromRanking)]);
  }
  if (player) tabs.push(["player", "Player", player.panel]);
  const sections = tabs.map(([id, text, panel]) => addTab(id, text, panel, go));

  function go(address) {
    location.hash = address;
    follow(); // at once: the event comes later, and not at all for the same address
  }

  // The part behind # tells section and video, so that the browser's back button works; what is no
  // section, such as the link past the head, changes nothing.
  let current = "overview";
  function follow() {
    const [id, index] = location.hash.slice(1).split("/");
    const known = sections.some((section) => section.id === id);
    if (known || !location.hash) current = known ? id : "overview";
    for (const section of sections) section.select(section.id === current);
    if (current !== "player") return player?.stop();
    const wanted = Number.parseInt(index ?? player.opened(), 10) || 0;
    return player.open(clamp(wanted, 0, payload.videos.length - 1));
  }

  document.getElementById("tabs").addEventListener("keydown", (event) => {
    const last = sections.length - 1;
    const chosen = sections.findIndex((section) => section.selected());
    const right = chosen < last ? chosen + 1 : 0;
    const left = chosen > 0 ? chosen - 1 : last;
    const next = { Home: 0, End: last, ArrowRight: right, ArrowLeft: left }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    go(sections[next].id);
    sections[next].tab.focus();
  });
  document.addEventListener("keydown", (event) => {
    const playing = sections.some((section) => section.selected() && section.id === "player");
    if (!playing || event.ctrlKey || event.metaKey || event.altKey || takesKey(event)) return;
    player.key(event);
  });
  window.addEventListener("hashchange", follow);
  follow();
}

function addTab(id, text, panel, go) {
  const [tabId, panelId] = [`tab-${id}`, `panel-${id}`];
  const opens = { "aria-controls": panelId, onclick: () => go(id) };
  const tab = element("button", { type: "button", role: "tab", id: tabId, ...opens }, text);
  const names = { "aria-labelledby": tabId, "data-title": text, tabindex: -1 };
  const section = element("section", { role: "tabpanel", id: panelId, ...names }, panel);
  document.getElementById("tabs").append(tab);
  document.getElementById("main").append(section);
  return {
    id,
    tab,
    selected: () => !section.hidden,
    select(chosen) {
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      section.hidden = !chosen;
      if (chosen) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    },
  };
}

// Fields, lists and tabs have a use for these keys of their own.
function takesKey(event) {
  const target = event.target;
  if (target.closest("[role=tab]")) return true;
  if (event.key === " " && target.closest("button, input, select, a")) return true;
  if (target.matches("select, input:not([type=checkbox])")) return true;
  return false;
}

function schemeSwitch(button) {
  let scheme = 0;
  button.addEventListener("click", () => {
    scheme = (scheme + 1) % SCHEMES.length;
    button.textContent = `Scheme: ${SCHEMES[scheme]}`;
    document.documentElement.style.colorScheme = scheme ? SCHEMES[scheme] : "";
  });
}

start();
