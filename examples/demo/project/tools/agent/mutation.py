"""Small changes of a Python file, as a person who made a small mistake would take them back.

Each change replaces one piece of the text, so that comments and layout stay. Which piece comes first is the search's
business; here, every kind of change only has a weight that says how often mistakes are of that kind.
"""

import ast
import re
from dataclasses import dataclass

COMPARISONS = {
    ast.Lt: ("<", ["<=", ">", ">=", "!="]),
    ast.LtE: ("<=", ["<", ">=", ">", "=="]),
    ast.Gt: (">", [">=", "<", "<=", "!="]),
    ast.GtE: (">=", [">", "<=", "<", "=="]),
    ast.Eq: ("==", ["!=", "<=", ">="]),
    ast.NotEq: ("!=", ["==", "<", ">"]),
    ast.In: ("in", ["not in"]),
    ast.NotIn: ("not in", ["in"]),
    ast.Is: ("is", ["is not"]),
    ast.IsNot: ("is not", ["is"]),
}
ARITHMETIC = {
    ast.Add: ("+", ["-", "*"]),
    ast.Sub: ("-", ["+", "*"]),
    ast.Mult: ("*", ["//", "+", "/", "-", "**"]),
    ast.Div: ("/", ["//", "*"]),
    ast.FloorDiv: ("//", ["/", "*", "%"]),
    ast.Mod: ("%", ["//", "*"]),
    ast.Pow: ("**", ["*"]),
    ast.LShift: ("<<", [">>"]),
    ast.RShift: (">>", ["<<"]),
    ast.BitAnd: ("&", ["|", "^"]),
    ast.BitOr: ("|", ["&", "^"]),
    ast.BitXor: ("^", ["|", "&"]),
}
# Names of the language that are taken for each other.
PAIRS = [
    ("min", "max"), ("any", "all"), ("len", "sum"), ("int", "round"), ("floor", "ceil"), ("upper", "lower"),
    ("startswith", "endswith"), ("append", "extend"), ("lstrip", "rstrip"), ("strip", "rstrip"), ("keys", "values"),
    ("values", "items"), ("add", "discard"), ("update", "intersection_update"), ("find", "rfind"), ("index", "count"),
    ("sorted", "reversed"), ("break", "continue"),
]
TWINS = {}
for _left, _right in PAIRS:
    TWINS.setdefault(_left, []).append(_right)
    TWINS.setdefault(_right, []).append(_left)


@dataclass(frozen=True)
class Edit:
    """One replaced piece of a file, in bytes of its text."""

    file: str
    line: int
    start: int
    end: int
    before: str
    after: str
    function: str
    weight: float

    def apply(self, source):
        """The text with the change in it."""
        return source[:self.start] + self.after.encode() + source[self.end:]

    def describe(self):
        """The change in words."""
        return f"{self.file}:{self.line}: `{self.before}` becomes `{self.after}`"


@dataclass
class Hints:
    """What the failing tests said and hold: numbers and texts that a wrong constant may have to become."""

    numbers: set
    texts: set
    differences: set

    @classmethod
    def of(cls, messages):
        """Reads the last words of failing tests."""
        numbers, texts, differences = set(), set(), set()
        for message in messages:
            found = [int(text) for text in re.findall(r"(?<![\w.])-?\d{1,12}(?![\w.])", message)][:8]
            numbers.update(found)
            if len(found) >= 2:
                differences.add(found[1] - found[0])
                differences.add(found[0] - found[1])
            texts.update(text for text in re.findall(r"'([^'\n]{1,60})'", message)[:8])
        return cls(numbers, texts, differences - {0})


def edits(file, source, hints):
    """Every change of the file, without order; a text that is not Python has none."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    return list(dict.fromkeys(_Collector(file, source, tree, hints).collect()))


class _Collector:
    def __init__(self, file, source, tree, hints):
        self.file, self.source, self.tree, self.hints = file, source, tree, hints
        self.offsets = [0]
        for line in source.splitlines(keepends=True):
            self.offsets.append(self.offsets[-1] + len(line))
        self.found = []
        self.scope = []
        nodes = list(ast.walk(tree))
        self.attributes = sorted({node.attr for node in nodes if isinstance(node, ast.Attribute)})
        self.texts = sorted({
            node.value for node in nodes
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) <= 60
        })
        self.functions = sorted({node.name for node in nodes if isinstance(node, ast.FunctionDef)})
        self.globals = sorted({
            target.id for node in tree.body if isinstance(node, ast.Assign)
            for target in node.targets if isinstance(target, ast.Name)
        } | {
            alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
        })

    def collect(self):
        for node in self.tree.body:
            self._visit(node)
        return self.found

    # Positions. The syntax tree counts columns in bytes of UTF-8, and so does everything here.

    def _start(self, node):
        return self.offsets[node.lineno - 1] + node.col_offset

    def _end(self, node):
        return self.offsets[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node):
        return self.source[self._start(node):self._end(node)].decode()

    def _replace(self, node, after, weight, start=None, end=None):
        start = self._start(node) if start is None else start
        end = self._end(node) if end is None else end
        before = self.source[start:end].decode()
        if before != after:
            function = self.scope[-1][0] if self.scope else ""
            self.found.append(Edit(self.file, node.lineno, start, end, before, after, function, weight))

    def _operator(self, node, left, right, text, others, weight):
        """Replaces an operator between two nodes; only its own characters change."""
        start, end = self._end(left), self._start(right)
        between = self.source[start:end].decode()
        pattern = r"\s+".join(re.escape(word) for word in text.split())
        found = re.search(pattern, between)
        if found is None:
            return
        begin, finish = start + len(between[:found.start()].encode()), start + len(between[:found.end()].encode())
        for rank, other in enumerate(others):
            self._replace(node, other, weight * 0.9**rank, begin, finish)

    # The walk.

    def _visit(self, node):
        entered = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if entered:
            self.scope.append((node.name, self._locals(node)))
        method = getattr(self, f"_on_{type(node).__name__.lower()}", None)
        if method:
            method(node)
        for child in self._children(node):
            self._visit(child)
        if entered:
            self.scope.pop()

    @staticmethod
    def _children(node):
        """All that can be wrong in a node: not its documentation, annotations or decorators."""
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "ctx"):
                continue
            items = value if isinstance(value, list) else [value]
            for item in items:
                documentation = isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)
                if isinstance(item, ast.AST) and not documentation and not isinstance(item, ast.JoinedStr):
                    yield item

    @staticmethod
    def _locals(function):
        arguments = function.args
        every = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
        names = {argument.arg for argument in every}
        names.update(
            node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )
        return sorted(names)

    # One method for each kind of node that knows a mistake.

    def _on_compare(self, node):
        left = node.left
        for operator, right in zip(node.ops, node.comparators):
            text, others = COMPARISONS[type(operator)]
            self._operator(node, left, right, text, others, 1.0)
            left = right
        for side in (node.left, node.comparators[-1]):
            self._shift(side, 0.6)

    def _on_binop(self, node):
        if type(node.op) not in ARITHMETIC:
            return
        text, others = ARITHMETIC[type(node.op)]
        self._operator(node, node.left, node.right, text, others, 0.9)
        left, right = self._text(node.left), self._text(node.right)
        if isinstance(node.op, (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)):
            self._replace(node, f"{right} {text} {left}", 0.6)
        if isinstance(node.op, ast.FloorDiv):
            self._replace(node, f"-(-({left}) // ({right}))", 0.7)
        # The text of an operand in parentheses lies inside them, so it stands alone as well.
        self._replace(node, left, 0.4)
        self._replace(node, right, 0.4)

    def _on_boolop(self, node):
        text, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            self._operator(node, left, right, text, [other], 1.0)

    def _on_unaryop(self, node):
        if isinstance(node.op, (ast.Not, ast.USub)):
            self._replace(node, self._text(node.operand), 0.8)

    def _on_augassign(self, node):
        if type(node.op) not in ARITHMETIC:
            return
        text, others = ARITHMETIC[type(node.op)]
        self._operator(node, node.target, node.value, f"{text}=", [f"{other}=" for other in others] + ["="], 0.9)

    def _on_assign(self, node):
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name) and self.scope:
            self._operator(node, node.targets[0], node.value, "=", ["+=", "-="], 0.5)

    def _on_if(self, node):
        self._negate(node.test)

    _on_while = _on_if
    _on_ifexp = _on_if

    def _negate(self, test):
        if not isinstance(test, ast.Compare):
            self._replace(test, f"not ({self._text(test)})", 0.7)

    def _on_constant(self, node):
        value = node.value
        if isinstance(value, bool):
            self._replace(node, repr(not value), 0.9)
        elif isinstance(value, int):
            self._number(node, value)
        elif isinstance(value, float):
            for other in (value * 10, value / 10, value * 100, value / 100, value + 1, value - 1, 1 - value, -value):
                self._replace(node, repr(other), 0.4)
        elif isinstance(value, str) and len(value) <= 60:
            for text in sorted(self.hints.texts):
                self._replace(node, repr(text), 0.6)
            for text in self.texts:
                self._replace(node, repr(text), 0.4)

    def _number(self, node, value):
        weights = {value + 1: 0.9, value - 1: 0.9, 0: 0.6, 1: 0.6}
        for number in self.hints.numbers:
            weights.setdefault(number, 0.75)
        for difference in self.hints.differences:
            weights.setdefault(value + difference, 0.7)
        for number in (value * 10, value // 10, value * 100, value // 100, -value):
            weights.setdefault(number, 0.5)
        for step in (2, 3, 4, 5, 10):
            weights.setdefault(value + step, 0.3)
            weights.setdefault(value - step, 0.3)
        for number in self.hints.numbers:
            for divisor in (10, 100, 1000):
                if number and number % divisor == 0:
                    weights.setdefault(number // divisor, 0.4)
        for number, weight in weights.items():
            if number != value and (number >= 0 or value <= 0 or weight >= 0.5):
                self._replace(node, str(number), weight)

    def _on_name(self, node):
        if not isinstance(node.ctx, ast.Load):
            return
        for twin in TWINS.get(node.id, []):
            self._replace(node, twin, 0.9)
        local = self.scope[-1][1] if self.scope else []
        names = dict.fromkeys([*local, *self.globals, *self.functions])
        for name in names:
            # A name that is written like a constant stands for one, and a function's for a function's.
            alike = name.isupper() == node.id.isupper() and (name in self.functions) == (node.id in self.functions)
            self._replace(node, name, 0.7 if alike else 0.3)

    def _on_attribute(self, node):
        start = self._end(node) - len(node.attr.encode())
        for twin in TWINS.get(node.attr, []):
            self._replace(node, twin, 0.9, start)
        for name in self.attributes:
            self._replace(node, name, 0.6, start)

    def _on_call(self, node):
        for left, right in zip(node.args, node.args[1:]):
            between = self.source[self._end(left):self._start(right)].decode()
            swapped = self._text(right) + between + self._text(left)
            self._replace(left, swapped, 0.8, end=self._end(right))
        bounds = isinstance(node.func, ast.Name) and node.func.id == "range"
        for argument in node.args:
            self._shift(argument, 0.8 if bounds else 0.45)
        # A call that is too much: f(x) where x was meant.
        if len(node.args) == 1 and not node.keywords:
            self._replace(node, self._text(node.args[0]), 0.4)

    def _on_slice(self, node):
        for bound in (node.lower, node.upper):
            if bound is not None:
                self._shift(bound, 0.8)

    def _on_subscript(self, node):
        if not isinstance(node.slice, (ast.Slice, ast.Constant)):
            self._shift(node.slice, 0.6)

    def _on_return(self, node):
        if node.value is not None:
            self._shift(node.value, 0.4)
            if isinstance(node.value, (ast.Compare, ast.BoolOp, ast.Name, ast.Call)):
                self._replace(node.value, f"not ({self._text(node.value)})", 0.4)

    def _on_break(self, node):
        self._replace(node, "continue", 0.5)

    def _on_continue(self, node):
        self._replace(node, "break", 0.5)

    def _on_expr(self, node):
        self._replace(node, "pass", 0.2)

    def _shift(self, node, weight):
        """One more or one less than a value that is not a plain number, which has changes of its own."""
        if isinstance(node, (ast.Name, ast.Attribute, ast.Call, ast.BinOp, ast.Subscript)):
            self._replace(node, f"{self._text(node)} + 1", weight)
            self._replace(node, f"{self._text(node)} - 1", weight)
