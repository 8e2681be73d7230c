"""The composition root: the only place that constructs everything.

`main` brings a node up, `serving` runs it, `node` is it. The verbs that need no running node call
functions of this package too.

- starting: `main`, `detached`, `loading`, `options`, `config`, `config_schema`, `configured`,
  `configuring`, `told`, `again`, `serving`, `lock`, `node`, `ground`, `background`, `world`,
  `clock`, `user`, `version`, `ending`, `init`
- a home and its mesh: `founding`, `joining`, `entering`, `admitting`, `introducing`, `replacing`,
  `membership`, `roots`, `authority`, `renewing`, `restoring`, `persistence`
- how others find it: `addresses`, `moving`, `listeners`, `finding`, `describing`, `own_record`,
  `last_heard`
- sessions and commands: `hosting`, `unlisted`, `supervision`, `inside`, `commanding`, `outputs`,
  `books`, `standing`, `attributing`
- the ledger: `usage`, `blocks`, `locating`, `following`, `explaining`, `rounds`, `pricing`,
  `price_file`, `keeping`, `rolling`, `verifying`, `budgeting`
- a status line: `glancing`, `latch`
- watched and audited: `eventing`, `auditing`, `alarming`, `refusals`
- HTTP and metrics: `fronting`, `http_options`
- without a node: `offline`, `doctor`, `suspects`, `observing`
"""
