"""The commands ``install``, ``uninstall``, ``rollback`` and ``status``: their command lines, and how a person is told.

``rollout`` knows what is done; ``telling`` shows a plan, ``running`` carries it out. JSON (``--output json``) of the
first three:

    {"node", "changes": [{"path", "role", "action", "diff"}], "commands": [text], "notes": [text],
     "checks": {"stops": [finding], "others": [finding], "skipped": [text]},
     "steps": [text], "outcome", "message"}

``outcome`` is ``planned``, ``nothing-to-do``, ``done``, ``refused`` (nothing was changed) or ``failed``; a finding has
the members that it has in doctor's report.
"""
