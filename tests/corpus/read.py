"""Reads PostgreSQL's own regression scripts by PostgreSQL's own parser, and tells what each statement is.

A line of JSON for each statement that can be parsed, with what its session must expect of it by the parse tree; and lines
for texts of several statements, with where PostgreSQL cuts them.
"""

import json
import random
import re
import sys
from pathlib import Path

from pglast import ast, parse_sql
from pglast.enums import DiscardMode, TransactionStmtKind, VariableSetKind
from pglast.parser import ParseError, split
from pglast.visitors import Visitor

HOLD = 0x20  # CURSOR_OPT_HOLD

FUNCTIONS = {
    "SEQUENCE_NEXT": {"nextval", "setval"},
    "SEQUENCE_READ": {"currval", "lastval"},
    "ADVISORY_LOCK": {
        "pg_advisory_lock",
        "pg_advisory_lock_shared",
        "pg_try_advisory_lock",
        "pg_try_advisory_lock_shared",
    },
    "ADVISORY_UNLOCK": {"pg_advisory_unlock", "pg_advisory_unlock_shared"},
    "ADVISORY_UNLOCK_ALL": {"pg_advisory_unlock_all"},
    "SESSION_FUNCTION": {"setseed"},
}

TRANSACTIONS = {
    TransactionStmtKind.TRANS_STMT_BEGIN: ("Begin", "TRANSACTION_BEGIN"),
    TransactionStmtKind.TRANS_STMT_START: ("Begin", "TRANSACTION_BEGIN"),
    TransactionStmtKind.TRANS_STMT_COMMIT: ("Commit", "TRANSACTION_END"),
    TransactionStmtKind.TRANS_STMT_ROLLBACK: ("Rollback", "TRANSACTION_END"),
    TransactionStmtKind.TRANS_STMT_SAVEPOINT: ("Savepoint", "SAVEPOINT"),
    TransactionStmtKind.TRANS_STMT_RELEASE: ("Release", "SAVEPOINT"),
    TransactionStmtKind.TRANS_STMT_ROLLBACK_TO: ("RollbackTo", "SAVEPOINT"),
    TransactionStmtKind.TRANS_STMT_PREPARE: ("PrepareTransaction", "TRANSACTION_END"),
    TransactionStmtKind.TRANS_STMT_COMMIT_PREPARED: ("CommitPrepared", None),
    TransactionStmtKind.TRANS_STMT_ROLLBACK_PREPARED: ("RollbackPrepared", None),
}

DISCARDS = {
    DiscardMode.DISCARD_ALL: "DISCARD_ALL",
    DiscardMode.DISCARD_TEMP: "DISCARD_TEMP",
    DiscardMode.DISCARD_PLANS: "DISCARD_PLANS",
    DiscardMode.DISCARD_SEQUENCES: "DISCARD_SEQUENCES",
}


class Calls(Visitor):
    """Names of functions called, and whether anything is temporary."""

    def __init__(self):
        super().__init__()
        self.names = set()
        self.temporary = False

    def visit_FuncCall(self, _ancestors, node):
        self.names.add(node.funcname[-1].sval)

    def visit_RangeVar(self, _ancestors, node):
        self.temporary |= node.relpersistence == "t"
        self.temporary |= (node.schemaname or "").startswith("pg_temp")


# Words without which there is nothing to be found; to look at each node takes long.
NOTABLE = re.compile("(?i)temp|set_config|" + "|".join(sorted(set().union(*FUNCTIONS.values()))))


def calls_of(text, node):
    calls = Calls()
    if NOTABLE.search(text):
        calls(node)
    return calls


def set_effects(node):
    kind = node.kind
    if kind == VariableSetKind.VAR_RESET_ALL:
        return "ResetAll", {"RESET_ALL"}, None
    if kind == VariableSetKind.VAR_SET_MULTI and node.name != "SESSION CHARACTERISTICS":
        return "SetTransaction", set(), None
    command = "Reset" if kind == VariableSetKind.VAR_RESET else "Set"
    if kind == VariableSetKind.VAR_SET_MULTI:
        return "SetCharacteristics", {"SET_SESSION"}, None
    if node.name.startswith("transaction_"):
        return None, set(), None
    if node.is_local:
        return command, {"SET_LOCAL"}, node.name
    special = {"role": "SET_ROLE", "session_authorization": "SET_SESSION_AUTHORIZATION"}
    return command, {special.get(node.name, "SET_SESSION")}, node.name


def expected(node):
    """The command as pgweir calls it or None, what the statement may do, and the name that it is about."""
    match node:
        case ast.VariableSetStmt():
            return set_effects(node)
        case ast.VariableShowStmt():
            return "Show", {"SHOW"}, None
        case ast.TransactionStmt():
            command, effect = TRANSACTIONS[node.kind]
            named = command in ("Savepoint", "Release", "RollbackTo")
            return command, {effect} - {None}, node.savepoint_name if named else None
        case ast.PrepareStmt():
            return "Prepare", {"PREPARE"}, node.name
        case ast.ExecuteStmt():
            return "Execute", {"EXECUTE"}, node.name
        case ast.DeallocateStmt():
            return ("Deallocate" if node.name else "DeallocateAll"), {"DEALLOCATE"}, node.name
        case ast.ListenStmt():
            return "Listen", {"LISTEN"}, node.conditionname
        case ast.UnlistenStmt():
            return ("Unlisten" if node.conditionname else "UnlistenAll"), {"UNLISTEN"}, node.conditionname
        case ast.NotifyStmt():
            return "Notify", {"NOTIFY"}, node.conditionname
        case ast.DeclareCursorStmt():
            held = {"DECLARE_HOLD"} if node.options & HOLD else {"DECLARE_CURSOR"}
            return "Declare", held, node.portalname
        case ast.ClosePortalStmt():
            return ("Close" if node.portalname else "CloseAll"), {"CLOSE" if node.portalname else "CLOSE_ALL"}, node.portalname
        case ast.FetchStmt():
            return ("Move" if node.ismove else "Fetch"), {"FETCH"}, None
        case ast.LoadStmt():
            return "Load", {"LOAD"}, None
        case ast.DiscardStmt():
            return "Discard", {DISCARDS[node.target]}, None
        case ast.DoStmt():
            return "Do", {"DO"}, None
        case ast.CallStmt():
            return "Call", {"CALL"}, None
        case ast.CopyStmt():
            return "Copy", {"COPY"} | ({"WRITE"} if node.is_from else set()), None
        case ast.InsertStmt() | ast.UpdateStmt() | ast.DeleteStmt() | ast.MergeStmt():
            return (None if node.withClause else type(node).__name__[:-4]), {"WRITE"}, None
        case ast.SelectStmt():
            return None, set(), None
        case ast.ExplainStmt():
            inner = {"EXECUTE"} if isinstance(node.query, ast.ExecuteStmt) else set()
            return "Explain", {"EXPLAIN"} | inner, None
        case ast.CreateTableAsStmt() if isinstance(node.query, ast.ExecuteStmt):
            return None, {"DDL", "EXECUTE"}, None
        case ast.CreateTableAsStmt() | ast.CreateStmt() | ast.ViewStmt() | ast.CreateSeqStmt() | ast.CreateFunctionStmt():
            return None, {"DDL"}, None
        case ast.AlterTableStmt() | ast.DropStmt() | ast.CreateTrigStmt() | ast.RuleStmt() | ast.RenameStmt():
            return None, {"DDL"}, None
    return None, set(), None


def analyzes(node):
    on = [option for option in node.options or () if option.defname == "analyze"]
    return bool(on) and getattr(on[-1].arg, "sval", "true") not in ("off", "false")


def runs_calls(node):
    """Whether the functions named in a statement are called when it is executed."""
    if isinstance(node, ast.ExplainStmt):
        return analyzes(node) and runs_calls(node.query)
    return isinstance(
        node,
        (ast.SelectStmt, ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt, ast.ExecuteStmt, ast.CallStmt,
         ast.CreateTableAsStmt),
    )


def describe(text, node):
    command, needs, name = expected(node)
    needs = set(needs)
    calls = calls_of(text, node)
    if runs_calls(node):
        for effect, names in FUNCTIONS.items():
            if names & calls.names:
                needs.add(effect)
        if "set_config" in calls.names:
            needs.add("SET_CONFIG|SET_LOCAL")
    makes = (ast.CreateStmt, ast.CreateTableAsStmt, ast.ViewStmt, ast.CreateSeqStmt, ast.SelectStmt)
    if calls.temporary and isinstance(node, makes):
        needs.add("TEMP_OBJECT")
    return {"text": text, "command": command, "needs": sorted(needs), "name": name}


def cleaned(script):
    """Without the commands of psql and the data of COPY."""
    script = re.sub(r"(?im)^(copy\b[^;]*\bfrom\s+stdin\b[^;]*;)[^\n]*\n(?:.*\n)*?\\\.$", r"\1", script)
    lines = [line for line in script.split("\n") if not line.lstrip().startswith("\\")]
    script = "\n".join(re.sub(r"\s\\(gexec|gset|g|gx|gdesc|crosstabview|bind|parse)\b.*$", ";", line) for line in lines)
    return re.sub(r":'(\w+)'", r"'\1'", re.sub(r':"(\w+)"', r'"\1"', script))


def statements(script):
    """The statements that can be parsed. PostgreSQL's scanner cuts at semicolons inside BEGIN ATOMIC too."""
    held = ""
    try:
        pieces = split(script, with_parser=False)
    except ParseError:
        # Something in it cannot even be scanned, on purpose.
        pieces = re.split(r";[ \t]*\n", script)
    for piece in pieces:
        text = f"{held};{piece}" if held else piece
        try:
            parsed = parse_sql(text)
        except ParseError:
            held = text if re.search(r"(?i)\bbegin\s+atomic\b", text) and len(text) < 5000 else ""
            continue
        held = ""
        if len(parsed) == 1:
            yield text, parsed[0].stmt


def batches(texts, random):
    """Texts of several statements, and where the parser cuts them, in bytes."""
    separators = [";", " ; ", ";;", ";\n-- a comment; with 'quotes\n", "; /* one; /* nested; */ $$ */ ", ";\n\n"]
    for at in range(0, len(texts), 20):
        batch = "".join(text + random.choice(separators) for text in texts[at : at + 20])
        slices = split(batch, with_parser=True, only_slices=True)
        ends = [[len(batch[: cut.start].encode()), len(batch[: cut.stop].encode())] for cut in slices]
        yield {"batch": batch, "slices": ends}


def main():
    numbers = random.Random(1)
    for path in sorted(Path(sys.argv[1]).rglob("*.sql")):
        try:
            script = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = list(statements(cleaned(script)))
        texts = [text for text, _ in found]
        for line in [describe(text, node) for text, node in found] + list(batches(texts, numbers)):
            print(json.dumps({"file": path.name} | line))


main()
