"""How are tests judged that are more than asserts on calls: names, loops, helpers, objects?

Such tests are a script, and it runs three times. The *plan* runs it in a clean child before any
program is there: all that asks no program is executed, and each call of a program's function is
noted with the values of its arguments. The *steps* hand these calls to the program, which sees no
name of the tests besides. The *replay* runs the script in a clean child again, where the program's
answers stand as plain values in place of the calls: helpers and comparisons meet nothing else.

A name is a program's if neither the tests nor Python define it. What cannot be told apart this way
is refused by a StudyError, as a wrong verdict would train the wrong thing.
"""

import ast
import builtins
import copy
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from hybridlib import StudyError

BUILTINS = set(dir(builtins))
SCOPES = ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
MAX_EVENTS = 1000  # calls and asserts of one script, each round of a loop counted
PLAN_HEAD = f"""\
import json as _json
from hybridlib.sandbox import wire as _wire
_events, _values, _places, _alive = [], [], {{}}, []
def _event(_number, *_slots):
    if len(_events) >= {MAX_EVENTS}:
        raise ValueError('more than {MAX_EVENTS} asserts and calls')
    _event_places = []
    for _slot in _slots:
        try:
            _value = _wire.encode(_slot)
        except ValueError:
            _event_places.append(-1)
            continue
        _is_iterator = type(_value) is list and _value[0] == 'iter'  # empty from now on
        _key = (id(_slot), '' if _is_iterator else _json.dumps(_value))
        if _key not in _places:
            _places[_key] = len(_values)
            _values.append(_value)
            _alive.append(_slot)
        _event_places.append(_places[_key])
    _events.append([_number, _event_places])
"""
"""Notes events and the values of their arguments; an object that is met twice has one place."""
PLAN_RESULT = "_json.dumps([_events, _values])"
REPLAY_HEAD = """\
_results = []
class _End(BaseException): pass
def _take():
    if len(_results) >= len(_answers): raise _End
    return _answers[len(_results)]
def _check(_holds):
    if not _holds: raise AssertionError
"""


@dataclass
class Event:
    """A statement that asks the program: what goes out for it each time that it is executed.

    In these texts `_slot_<number>_<j>_` stands for the value of slot j, whose code is `slots[j]`;
    `_unit_<number>_<j>_` for the value of expression j of `units`, which the program answers.
    `after` is a statement that the program executes then. Where `answers` is false nothing comes
    back and the replay has no part in it.
    """

    number: int
    place: int  # of the statement at the top level that it belongs to
    units: list[str] = field(default_factory=list)
    slots: list[str] = field(default_factory=list)
    after: str = ""
    answers: bool = True

    def asked(self) -> tuple[list[str], str]:
        """Return what the program is asked, apart from names under which it keeps answers."""
        return self.units, "" if self.answers else self.after


@dataclass(frozen=True)
class Script:
    """Tests that are planned and replayed; `steps` makes the program's part of a plan's answer."""

    plan: str
    replay: str
    body: list[ast.stmt]
    events: list[Event]
    local_names: frozenset[str]  # bound inside loops and branches that ask the program
    compared_names: frozenset[str]  # that decide what an answer is compared with

    def steps(self, answer: str) -> tuple[list[str | list[str]], dict[str, Any]]:
        """Return the steps of the program, and its variables, encoded, from what the plan says."""
        executed, values = json.loads(answer)
        events = [(self.events[number], places) for number, places in executed]
        by_source = [
            slot
            for event, places in events
            for slot, place in zip(event.slots, places, strict=True)
            if place < 0
        ]
        classes = [node.name for node in self.body if isinstance(node, ast.ClassDef)]
        sources = self._sources({name for text in (*by_source, *classes) for name in _loaded(text)})
        steps: list[str | list[str]] = []
        next_source = 0
        for occurrence, (event, places) in enumerate(events):
            while next_source <= event.place:
                if next_source in sources:
                    steps.append(sources[next_source])
                next_source += 1

            def fill(text: str, event=event, places=places, occurrence=occurrence) -> str:
                for j, (slot, place) in enumerate(zip(event.slots, places, strict=True)):
                    value = f"_value_{place}" if place >= 0 else f"({slot})"
                    text = text.replace(f"_slot_{event.number}_{j}_", value)
                return text.replace(f"_unit_{event.number}_", f"_unit_{occurrence}_")

            if event.answers:
                steps.append([fill(unit) for unit in event.units])
            if event.after:
                steps.append(fill(event.after))
        return steps, {f"_value_{place}": value for place, value in enumerate(values)}

    def _sources(self, names: set[str]) -> dict[int, str]:
        """Return, by place, the statements that these names need where they have no plain value."""
        names, needed = set(names), {}
        for place in reversed(range(len(self.body))):
            node = self.body[place]
            if isinstance(node, ast.Import | ast.ImportFrom):
                needed[place] = ast.unparse(node)
                continue
            touched = _touched(node)
            if not touched & names or any(event.place == place for event in self.events):
                continue
            is_data = not isinstance(node, ast.FunctionDef | ast.ClassDef)
            if is_data and touched & names & self.compared_names:
                _refuse(node, "would show the program what it is compared with")
            needed[place] = ast.unparse(node)
            names |= _loaded(node)
        if names & self.local_names:
            name = min(names & self.local_names)
            raise StudyError(f"{name!r} of the tests is no plain value; bind it outside of loops")
        return needed


def is_script(body: list[ast.stmt]) -> bool:
    """Return whether some tests hold more than imports, asserts and words."""
    return not all(
        isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.Pass)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in body
    )


def read(body: list[ast.stmt]) -> Script:
    """Split tests into plan, events and replay; raise StudyError where that cannot be done.

    They are gone through twice: what an answer is needed for is only known at the end.
    """
    first = _Reader(body)
    first.script()
    return _Reader(body, first).script()


def undefined(nodes: list[ast.AST], defined: set[str]) -> list[str]:
    """Return the names that some code reads and nothing defines, standard modules apart."""
    names = _names_read(nodes)
    return sorted(names - defined - {"_answer"} - BUILTINS - sys.stdlib_module_names)


def module_imports(nodes: list[ast.AST], defined: set[str]) -> list[str]:
    """Return imports of the standard modules that code names and leaves others to import."""
    names = _names_read(nodes)
    return [f"import {name}" for name in sorted(names & (sys.stdlib_module_names - defined))]


class _Reader:
    """Goes through a script in order and knows which names hold what a program has answered."""

    def __init__(self, body: list[ast.stmt], first: "_Reader | None" = None):
        """Take the tests, and the reader that has gone through them before."""
        self.body = body
        bound = bound_names(body)
        self.read_by_clean = _names_read(first.compared) if first else bound
        self.read_by_program = first.program_names if first else bound
        self.imported = _imported(body)
        self.bound = bound_names(body)
        self.tainted: set[str] = set()  # hold a program's answers
        self.instances: set[str] = set()  # tainted, and objects of a class of the program
        self.passed: set[str] = set()  # plain, but the program may have changed them in place
        self.events: list[Event] = []
        self.program_names: set[str] = set()  # that the program reads beside slots
        self.compared: list[ast.AST] = []  # code that the clean child alone executes
        self.comparisons: list[ast.AST] = []  # the part of it that meets answers
        self.local_names: set[str] = set()
        self.assigned: list[tuple[Event, set[str]]] = []
        self.changed: list[tuple[ast.stmt, str]] = []
        self.place = 0

    def script(self) -> Script:
        plan, replay = [], []
        for place, node in enumerate(self.body):
            self.place = place
            if self._asks(node) and not _is_simple(node):
                self.local_names |= _stored(node)
            planned, replayed = self._statement(node)
            plan += planned
            replay += replayed
        self._finish_assignments()
        if not any(event.answers for event in self.events):
            raise StudyError("the tests have no assert that asks the program; fix the row")
        self._refuse_undefined()
        missing = module_imports(self.compared, self.bound)
        plan_code = PLAN_HEAD + "\n".join([*missing, *map(_source, plan)])
        compared = _names_read(self.comparisons)
        for node in reversed(self.body):
            if _touched(node) & compared:
                compared |= _loaded(node)
        return Script(
            plan_code,
            self._replay_code(missing, replay),
            self.body,
            self.events,
            frozenset(self.local_names),
            frozenset(compared),
        )

    def _replay_code(self, imports: list[str], replay: list[ast.stmt]) -> str:
        guarded = ast.parse(
            "try: pass\nexcept _End: pass\nexcept BaseException: _results.append(False)"
        )
        guarded.body[0].body = replay or [ast.Pass()]
        return REPLAY_HEAD + "\n".join([*imports, _source(guarded)])

    def _refuse_undefined(self) -> None:
        names = undefined(self.compared, self.bound)
        if names:
            raise StudyError(
                f"the tests compare with {', '.join(names[:5])}, which they do not define"
            )

    def _statement(self, node: ast.stmt) -> tuple[list[ast.stmt], list[ast.stmt]]:
        """Return what the plan and what the replay execute for a statement."""
        if isinstance(node, ast.Assert):
            return self._assert(node)
        if not self._asks(node):
            self._forget(node)
            self.compared.append(node)
            return [node], [node]
        match node:
            case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
                return self._assignment(node)
            case ast.Expr():
                return self._expression(node)
            case ast.For(iter=condition) | ast.While(test=condition) | ast.If(test=condition):
                return self._compound(node, [condition])
            case ast.With(items=items):
                return self._compound(node, [item.context_expr for item in items])
        return _refuse(node, "cannot be judged; asserts belong to the top level or into loops")

    def _asks(self, node: ast.AST) -> bool:
        """Return whether a piece of code has an assert of ours or reads what a program answers."""
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            free = _loaded(node) - self.bound - BUILTINS - sys.stdlib_module_names
            if free or _loaded(node) & self.tainted:
                _refuse(node, "is a helper that asks the program; give it the answers instead")
            return False
        if _loaded(node) & self.tainted or isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call) and self._is_unit(node):
            return True
        return any(map(self._asks, ast.iter_child_nodes(node)))

    def _is_unit(self, node: ast.AST) -> bool:
        """Return whether the program is to evaluate this expression as a whole."""
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                return name in self.instances
            case ast.Call(func=ast.Name(id=name), args=arguments):
                if name not in self.bound | BUILTINS or name in self.tainted:
                    return True
                of_object = any(getattr(a, "id", "") in self.instances for a in arguments)
                return of_object and name in BUILTINS - self.bound
            case ast.Call(func=ast.Call() as inner):  # `make(1)(4)`
                return self._is_unit(inner)
            case ast.Call(func=ast.Attribute() as inner) | (ast.Attribute() as inner):
                return self._is_object(inner.value)
            case ast.Subscript(value=inner):
                return self._is_object(inner)
        return False

    def _is_object(self, node: ast.AST) -> bool:
        """Return whether an expression is an object of a class of the program, or part of one."""
        while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
            if isinstance(node, ast.Call) and self._makes_object(node):
                return True
            node = node.func if isinstance(node, ast.Call) else node.value
        return isinstance(node, ast.Name) and node.id in self.instances

    def _makes_object(self, node: ast.AST) -> bool:
        name = getattr(getattr(node, "func", None), "id", "")
        return isinstance(node, ast.Call) and name[:1].isupper() and name not in self.bound

    def _new_event(self) -> Event:
        self.events.append(Event(len(self.events), self.place))
        return self.events[-1]

    def _plan_event(self, event: Event) -> list[ast.stmt]:
        return ast.parse(f"_event({', '.join([str(event.number), *event.slots])})").body

    def _extract(self, node: ast.AST, event: Event, fetched: frozenset[str] = frozenset()) -> Any:
        """Return a copy of some code whose calls of the program are taken from `_answer`."""
        return _Extractor(self, event, fetched).visit(copy.deepcopy(node))

    def _assert(self, node: ast.Assert) -> tuple[list[ast.stmt], list[ast.stmt]]:
        event = self._new_event()
        test = self._extract(node.test, event)
        reads_answers = bool(_loaded(node.test) & self.tainted)
        if not event.units and not reads_answers:
            changed = frozenset(_loaded(node.test) & self.passed)
            if changed:
                test = self._extract(node.test, event, changed)
            else:  # a program may take a built-in's name: `assert sum(10, 15) == 6`
                with_builtins = _Extractor(self, event, frozenset(), frozenset(BUILTINS))
                test = with_builtins.visit(copy.deepcopy(node.test))
            if not event.units:
                _refuse(node, "cannot be judged; write `assert call(...) == value`")
        self.compared.append(test)
        self.comparisons.append(test)
        check = ast.Expr(ast.Call(ast.Name("_check", ast.Load()), [test], []))
        return self._plan_event(event), _replayed(check)

    def _assignment(self, node: ast.stmt) -> tuple[list[ast.stmt], list[ast.stmt]]:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = set().union(*map(_stored, targets))
        binds = all(isinstance(target, ast.Name | ast.Tuple | ast.List) for target in targets)
        if isinstance(node, ast.AugAssign) or not binds:
            self._change(node, names)
        else:
            self.instances -= names
        is_object = names <= self.instances or (self._makes_object(node.value) and binds)
        if is_object or (binds and not names & self.read_by_clean):
            planned = self._program_only(node)
            self.tainted |= names
            self.instances |= names if is_object else set()
            return planned
        event = self._new_event()
        rest = copy.deepcopy(node)
        rest.value = self._extract(node.value, event)
        return self._keep(event, rest, names)

    def _change(self, node: ast.stmt, names: set[str]) -> None:
        """Note that a statement changes names, whose first values the program may lack."""
        self.changed += [(node, name) for name in names - self.tainted]

    def _keep(
        self, event: Event, rest: ast.stmt, names: set[str]
    ) -> tuple[list[ast.stmt], list[ast.stmt]]:
        """Replay a statement without its calls, after which these names hold answers."""
        if names & self.read_by_program:
            event.after = _source(_Slots(self, event, units_only=True).visit(copy.deepcopy(rest)))
        self.tainted |= names
        self.passed -= names
        self.compared.append(rest)
        self.comparisons.append(rest)
        self.assigned.append((event, names))
        return self._plan_event(event), _replayed(rest)

    def _program_only(self, node: ast.stmt) -> tuple[list[ast.stmt], list[ast.stmt]]:
        """Let the program execute a statement that no comparison needs."""
        event = self._new_event()
        event.answers = False
        self._extract(node, event)  # refuses calls in scopes of their own
        event.units, event.slots = [], []
        event.after = _source(_Slots(self, event).visit(copy.deepcopy(node)))
        return self._plan_event(event), []

    def _finish_assignments(self) -> None:
        """Let the program keep an answer under its name only where a later call reads it."""
        for node, name in self.changed:
            if name in self.program_names:
                _refuse(node, f"changes {name}, which a call of the program reads; bind a new name")
        for event, names in self.assigned:
            if names & self.read_by_program:
                event.units = [
                    f"(_unit_{event.number}_{j}_ := {unit})" for j, unit in enumerate(event.units)
                ]

    def _expression(self, node: ast.Expr) -> tuple[list[ast.stmt], list[ast.stmt]]:
        call = node.value
        root = _root(call) if isinstance(call, ast.Call) else ""
        if root not in self.bound or self._is_unit(call):
            return self._program_only(node)
        event = self._new_event()
        names = {root} if isinstance(call.func, ast.Attribute) else set()  # `xs.append(f(1))`
        names -= self.imported
        self._change(node, names)
        return self._keep(event, self._extract(node, event), names)

    def _compound(
        self, node: ast.stmt, conditions: list[ast.expr]
    ) -> tuple[list[ast.stmt], list[ast.stmt]]:
        if any(map(self._asks, conditions)):
            _refuse(node, "depends on what the program answers; write asserts on its answers")
        self.compared += conditions
        for part in (getattr(node, "target", None), *getattr(node, "items", [])):
            if part is not None:
                self._forget(part)
        before, events = copy.deepcopy(self), len(self.events)
        plan, replay = copy.copy(node), copy.copy(node)
        for block in ("body", "orelse"):
            parts = [self._statement(child) for child in getattr(node, block, [])]
            if hasattr(node, block):
                ends = [ast.Pass()] if block == "body" else []
                setattr(plan, block, [s for planned, _ in parts for s in planned] or ends)
                setattr(replay, block, [s for _, replayed in parts for s in replayed] or ends)
        if isinstance(node, ast.For | ast.While) and self.tainted - before.tainted:
            before.tainted |= self.tainted  # as the second round finds it
            for child in [*node.body, *node.orelse]:
                before._statement(child)
            rounds = [
                [event.asked() for event in reader.events[events:]] for reader in (self, before)
            ]
            if rounds[0] != rounds[1]:
                _refuse(node, "carries an answer from one round to a call in the next")
        return [plan], [replay]

    def _forget(self, node: ast.AST) -> None:
        """Note that names get values of the tests' own; changes what `tainted` says."""
        names = _stored(node)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
        self.tainted -= names
        self.instances -= names
        self.passed -= names


class _Slots(ast.NodeTransformer):
    """Replaces what the tests alone know, in code for the program, by slots of an event."""

    def __init__(self, reader: _Reader, event: Event, units_only: bool = False):
        self.reader, self.event, self.units_only = reader, event, units_only

    def visit(self, node: ast.AST) -> ast.AST:
        reader = self.reader
        if self.units_only and isinstance(node, ast.Subscript):
            if getattr(node.value, "id", "") == "_answer":
                return ast.Name(f"_unit_{self.event.number}_{node.slice.value}_", ast.Load())
        if isinstance(node, ast.keyword | ast.Starred):
            node.value = self.visit(node.value)
            return node
        if not isinstance(node, ast.expr) or isinstance(getattr(node, "ctx", None), ast.Store):
            return self.generic_visit(node)
        names = _loaded(node)
        asks = reader._asks(node) or "_answer" in names or names - reader.bound - BUILTINS
        own = names & reader.bound - reader.imported
        if not asks and own:
            return self._slot(node)
        if isinstance(node, ast.Name):
            if node.id in reader.tainted:
                reader.program_names.add(node.id)
            return node
        if isinstance(node, SCOPES) and own:
            _refuse(node, "cannot be judged: it asks the program in a scope of its own")
        return self.generic_visit(node)

    def _slot(self, node: ast.expr) -> ast.Name:
        source = ast.unparse(node)
        if isinstance(node, ast.Name):
            self.reader.passed.add(node.id)
        self.event.slots.append(source)
        return ast.Name(f"_slot_{self.event.number}_{len(self.event.slots) - 1}_", ast.Load())


class _Extractor(ast.NodeTransformer):
    """Moves the outermost expressions that the program evaluates into an event."""

    def __init__(
        self,
        reader: _Reader,
        event: Event,
        fetched: frozenset[str],
        as_program: frozenset[str] = frozenset(),
    ):
        self.reader, self.event, self.fetched = reader, event, fetched
        self.as_program = as_program - reader.bound

    def visit(self, node: ast.AST) -> ast.AST:
        is_fetched = isinstance(node, ast.Name) and node.id in self.fetched
        called = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
        if is_fetched or self.reader._is_unit(node) or called in self.as_program:
            slots = _Slots(self.reader, self.event)
            unit = slots.generic_visit(node) if called in self.as_program else slots.visit(node)
            self.event.units.append(ast.unparse(unit))
            place = ast.Constant(len(self.event.units) - 1)
            return ast.Subscript(ast.Name("_answer", ast.Load()), place, ast.Load())
        before = len(self.event.units)
        node = self.generic_visit(node)
        if isinstance(node, SCOPES) and len(self.event.units) > before:
            _refuse(node, "cannot be judged: it asks the program in a scope of its own")
        return node


def _replayed(node: ast.stmt) -> list[ast.stmt]:
    """Return a statement with the answers to its event before and its result behind."""
    return [
        *ast.parse("_answer = _take()").body,
        node,
        *ast.parse("_results.append(True)").body,
    ]


def _source(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(node))


def _refuse(node: ast.AST, why: str) -> Any:
    raise StudyError(f"{ast.unparse(node)[:80]!r} {why}")


def _is_simple(node: ast.stmt) -> bool:
    kinds = ast.Assert | ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr
    return isinstance(node, kinds)


def _names_read(nodes: list[ast.AST]) -> set[str]:
    return set().union(*map(_loaded, nodes), set())


def _loaded_text(text: str) -> set[str]:
    return _loaded(ast.parse(text, mode="eval"))


def _loaded(node: ast.AST | str) -> set[str]:
    """Return the names that some code reads."""
    if isinstance(node, str):
        return _loaded_text(node)
    return {
        part.id
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)
    }


def _root(node: ast.AST) -> str:
    """Return the name that a chain of attributes, items and calls begins with, or ""."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Starred):
        node = node.func if isinstance(node, ast.Call) else node.value
    return getattr(node, "id", "")


def _stored(node: ast.AST) -> set[str]:
    """Return the names that some code binds, or changes an item or an attribute of."""
    names = set()
    for part in ast.walk(node):
        if isinstance(getattr(part, "ctx", None), ast.Store | ast.Del):
            names.add(_root(part))
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(part.name)
    return names - {""}


def _touched(node: ast.stmt) -> set[str]:
    """Return the names that a statement may give another value, in place included."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return {node.name}
    is_binding = isinstance(node, ast.Assign | ast.AnnAssign)
    return _stored(node) if is_binding else _stored(node) | _loaded(node)


def _imported(body: list[ast.stmt]) -> set[str]:
    return {
        alias.asname or alias.name.split(".")[0]
        for node in body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def bound_names(body: list[ast.stmt | ast.AST]) -> set[str]:
    """Return all names that the tests bind anywhere."""
    names = set()
    for node in ast.walk(ast.Module(body, [])):
        names |= _stored(node) if isinstance(node, ast.stmt | ast.comprehension) else set()
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= _imported([node])
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names
