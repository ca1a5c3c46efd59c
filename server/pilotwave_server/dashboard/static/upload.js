"use strict";
// Hash the files, send what the server lacks, show the command that signs them.
(() => {
  // the address of this server, with the path that it may be under
  const base = document.currentScript.src.split("/static/")[0];
  const PIECE = 4 * 1024 * 1024;
  const form = document.getElementById("upload");
  const words = document.getElementById("words").dataset;
  const $ = (id) => document.getElementById(id);

  const hashed = async (file, tell) => {
    const hash = sha256.create();
    for (let at = 0; at < file.size; at += PIECE) {
      hash.update(new Uint8Array(await file.slice(at, at + PIECE).arrayBuffer()));
      tell(words.hashing, (at + PIECE) / file.size);
    }
    return hash.hex();
  };
  const ask = async (address, options) => {
    const answer = await fetch(address, { credentials: "same-origin", ...options });
    if (answer.ok) return answer.json();
    const problem = await answer.json().catch(() => ({}));
    const error = new Error(problem.detail || `${answer.status}`);
    error.code = problem.code;
    throw error;
  };
  const send = async (file, digest, tell) => {
    const address = `${base}/api/v1/blobs/${digest}/upload`;
    let { offset, complete } = await ask(address);
    if (complete) return tell(words.there, 1);
    for (let tries = 0; !complete; ) {
      tell(words.sending, file.size ? offset / file.size : 0);
      try {
        ({ offset, complete } = await ask(address, {
          method: "PATCH",
          headers: {
            "X-CSRF-Token": form.dataset.csrf,
            "Content-Type": "application/octet-stream",
            "Upload-Offset": String(offset),
            "Upload-Length": String(file.size),
          },
          body: file.slice(offset, offset + PIECE),
        }));
        tries = 0;
      } catch (error) {
        if (++tries > 5 || (error.code && error.code !== "offset_mismatch")) throw error;
        await new Promise((done) => setTimeout(done, 500 * 2 ** tries));
        ({ offset, complete } = await ask(address));
      }
    }
    return tell(words.done, 1);
  };
  // The server refuses them as well, but then they have travelled.
  const refuseKeys = async (file) => {
    const head = await file.slice(0, PIECE).text();
    if (/BEGIN [A-Z0-9 ]*PRIVATE KEY|AGE-SECRET-KEY-|PuTTY-User-Key-File-/.test(head)) throw new Error(`${file.name}: ${words.secret}`);
  };
  const quoted = (text) => (/^[A-Za-z0-9._+=\/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const files = [...$("files").files];
    const button = form.querySelector("button");
    button.disabled = true;
    $("progress").hidden = false;
    $("failed").hidden = true;
    $("rows").replaceChildren();
    const rows = files.map((file) => {
      const row = $("row").content.cloneNode(true).firstElementChild;
      row.querySelector(".name").textContent = file.name;
      row.querySelector("progress").setAttribute("aria-label", file.name);
      $("rows").append(row);
      return (state, share) => {
        row.querySelector(".state").textContent = state;
        row.querySelector("progress").value = Math.min(1, share);
      };
    });
    try {
      for (const file of files) await refuseKeys(file);
      for (const [n, file] of files.entries()) await send(file, await hashed(file, rows[n]), rows[n]);
      const [model, version, variant] = ["model", "version", "variant"].map((id) => $(id).value);
      const where = files.length === 1 ? files[0].name : "FOLDER";
      $("command").textContent =
        `pilotwave publish ${quoted(model)} ${quoted(version)} --variant ${quoted(variant)}=${quoted(where)} --key keys/publisher.pem`;
      $("sign").hidden = false;
      const path = `${base}/models/${encodeURIComponent(model)}/${encodeURIComponent(version)}/arrived`;
      htmx.ajax("GET", path, { target: "#arrival", swap: "innerHTML" });
      $("sign").scrollIntoView();
    } catch (error) {
      $("failed").textContent = `${error.message} – ${words.failed}`;
      $("failed").hidden = false;
    } finally {
      button.disabled = false;
    }
  });
})();
