// The only script of WebConf. It is on the pages that talk to an authenticator, and puts what that answers
// into the form, which is then sent as any other.
"use strict";

for (const form of document.querySelectorAll("form[data-ceremony]")) {
  const button = form.querySelector("button");
  const status = form.querySelector("[role=status]");
  const say = (text) => { status.textContent = text; };

  // What the browser says is for developers; the names are those of the Web Authentication standard.
  const reasons = {
    NotAllowedError: "It was canceled, or took too long. Try again.",
    InvalidStateError: "This device has a passkey of your account already.",
    SecurityError: "The browser refuses: the address of this console does not fit its passkey domain, or its certificate is not trusted.",
    NotSupportedError: "This device cannot make a passkey that asks for your finger or PIN.",
    ConstraintError: "This device cannot make a passkey that asks for your finger or PIN.",
  };

  const ask = async () => {
    const options = JSON.parse(form.dataset.options);
    return form.dataset.ceremony === "create"
      ? navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
      : navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
  };

  if (!window.PublicKeyCredential || !PublicKeyCredential.parseRequestOptionsFromJSON) {
    say("This browser is too old for passkeys.");
    continue;
  }
  button.disabled = false;
  say("");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    say("Your browser asks for the passkey now.");
    try {
      const credential = await ask();
      form.elements.answer.value = JSON.stringify(credential.toJSON());
      form.submit();
    } catch (error) {
      say(reasons[error.name] || "The browser says: " + error.message);
      button.disabled = false;
    }
  });
}
