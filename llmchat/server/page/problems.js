// How errors are shown.

import { notice } from "./notices.js";
import { signIn } from "./signin.js";

/** Show an error of the server. A missing or invalid key opens the sign-in dialog. */
export function showProblem(error) {
  if (error.status === 401) return signIn().then(() => location.reload());
  return notice(error.message, {
    problem: true,
    lasting: true,
    action: { label: "Try again", run: () => location.reload() },
  });
}
