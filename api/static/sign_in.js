// Signs in from a link such as /#key=fono_...: what stands behind # never reaches a server's log.
const given = /^#key=(fono_[0-9a-f_]+)$/.exec(location.hash);
if (given) {
  // out of the address and the history before anything else happens
  history.replaceState(null, "", location.pathname);
  fetch("/session", {
    method: "POST",
    body: new URLSearchParams({ key: given[1] }),
    redirect: "manual",
  }).then((answer) => {
    if (answer.type === "opaqueredirect") {
      location.replace(location.pathname);
    } else {
      document.getElementById("refused")?.removeAttribute("hidden");
    }
  });
}
