"use strict";
// Times in the viewer's own zone; forms that ask for more when one field changes; the menu.
(() => {
  // the address of this server, with the path that it may be under
  const base = document.currentScript.src.split("/static/")[0];
  // the page's language as the viewer's own country writes it: 14:05 or 2:05 pm
  const { lang } = document.documentElement;
  const language = navigator.languages.find((own) => own.split("-")[0] === lang.split("-")[0]) || lang;
  window.pilotwaveLanguage = language;
  const zone = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
  const localise = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      if (time.dataset.local !== undefined) time.textContent = zone.format(at);
      else time.title = zone.format(at);
    }
  };
  const menu = document.querySelector(".menu");
  const wide = matchMedia("(min-width: 46.01rem)");
  const fit = () => { if (menu) menu.open = wide.matches; };
  wide.addEventListener("change", fit);
  fit();
  localise(document);
  document.addEventListener("htmx:afterSettle", (event) => localise(event.target));
  // A time that the server takes in UTC is chosen in the viewer's zone.
  for (const field of document.querySelectorAll("[data-utc]")) {
    const local = field.cloneNode();
    local.type = "datetime-local";
    local.removeAttribute("name");
    local.removeAttribute("placeholder");
    const at = new Date(field.value);
    local.value = Number.isNaN(at.getTime()) ? "" : new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
    local.addEventListener("change", () => { field.value = local.value && new Date(local.value).toISOString().replace(".000", ""); });
    field.removeAttribute("id");
    field.type = "hidden";
    field.after(local);
    const zoneName = document.querySelector("[data-zone]");
    if (zoneName) zoneName.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
  }
  for (const field of document.querySelectorAll("[data-reload]")) {
    field.addEventListener("change", () => {
      const form = new FormData(field.form);
      form.delete("csrf");
      form.delete("version");
      location.search = new URLSearchParams(form).toString();
    });
  }
  // What moves asks again when the server says that something happened, at most once a second.
  if (document.querySelector("[data-moves]") && window.EventSource) {
    const types = ["rollout.", "device."];
    const words = ["create", "approve", "start", "open", "open_wave", "next", "soak", "pause", "resume", "retry",
      "fail", "roll_back", "rolled_back", "complete", "abort", "switched", "healthy", "failed", "enrol", "pin", "unpin"];
    const source = new EventSource(base + "/api/v1/events/stream?type=rollout.*&type=device.*");
    let due = 0;
    const moved = () => {
      if (!due) due = setTimeout(() => { due = 0; htmx.trigger(document.body, "moved"); }, 1000);
    };
    for (const type of types) for (const word of words) source.addEventListener(type + word, moved);
    source.addEventListener("error", () => { if (source.readyState === EventSource.CLOSED) moved(); });
    addEventListener("pagehide", () => source.close());
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      document.getElementById("q")?.focus();
    }
    if (event.key === "Escape") document.querySelector(".who")?.removeAttribute("open");
  });
})();
