"""Chat templates that try to exhaust time or memory, or to leave the sandbox.

tests/fuzz/test_template_door.py renders each of them in another process.
"""

GROW = "{% set n = namespace(x='ab', l=[1]) %}"
BIG = "{% set b = 'a' * 1900000 %}"
LIST = "{% set l = range(100000) | list %}"

ATTACKS = {
    # Found by a review of the sandbox.
    "translate": "{{ 'a'.translate({97: 'b' * 1000000}) }}",
    "translate in a loop": (
        BIG + "{% for i in range(99999) %}{% set x = b.translate({97: 'bbbb'}) %}{% endfor %}"
    ),
    "sum of lists": "{{ ([[1] * 1000] * 1000) | sum(start=[]) }}",
    "sum of lists by attribute": (
        "{{ ([{'a': [1] * 1000}] * 1000) | sum(attribute='a', start=[]) }}"
    ),
    "strftime with a width": "{{ strftime_now('%1000000000d') }}",
    "strftime of a long pattern": "{{ strftime_now('%c' * 900000) }}",
    "strftime in a loop": (
        "{% for i in range(99999) %}{% for j in range(99) %}{{ strftime_now('%c' * 100) }}"
        "{% endfor %}{% endfor %}"
    ),
    "lipsum": "{{ lipsum(n=100000000) }}",
    "count of a range": "{{ range(10**17) | count }}",
    "count of characters": (
        BIG + "{% for i in range(99999) %}{{ b.count('aaaaaaaaab') }}{{ b.count('') }}{% endfor %}"
    ),
    "cycler": "{% set c = cycler(*range(99999)) %}{{ c.next() }}",
    "joiner": "{% set j = joiner('a' * 9999999) %}{{ j() }}{{ j() }}",
    # Repetition and padding.
    "text times number": "{{ 'a' * 10**12 }}",
    "list times number": "{{ [1] * 10**12 }}",
    "number times text": "{{ 10**12 * 'a' }}",
    "tuple times number": "{{ (1, 2) * 10**12 }}",
    "wide characters": "{{ '😀' * 1900000 }}",
    "format": "{{ '%1000000000d' | format(1) }}",
    "format by %": "{{ '%1000000000d' % 1 }}",
    "odd text": "{{ '%1000000000d' is odd }}",
    "even text": "{{ '%1000000000s' is even }}",
    "divisible text": "{{ '%1000000000s' is divisibleby(3) }}",
    "select odd texts": "{{ ['%1000000000d'] | select('odd') | list }}",
    "center": "{{ 'a' | center(10**9) }}",
    "center by a method": "{{ 'a'.center(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "indent": "{{ ('a\n' * 99999) | indent(10**6) }}",
    "indent by text": "{{ ('a\n' * 99999) | indent('b' * 99999) }}",
    "wordwrap": "{{ ('a ' * 99999) | wordwrap(1, wrapstring='b' * 99999) }}",
    "tojson with an indent": "{{ [[[[1]]]] | tojson(indent=10**9) }}",
    "tojson by text": "{{ [1] | tojson(indent='a' * 10**6) }}",
    "tojson with separators": "{{ [1, 2] | tojson(separators=('a' * 10**6, 'b')) }}",
    "tojson of much": "{{ (['\\u0000' * 1000] * 1900) | tojson }}",
    "tojson in a loop": LIST + "{% for i in range(99999) %}{{ l | tojson }}{% endfor %}",
    "replace": BIG + "{{ b | replace('a', 'bbbbbbbbb') }}",
    "replace of nothing": BIG + "{{ b.replace('', 'bbbbbbbb') }}",
    "replace in a loop": (
        GROW + "{% for i in range(99) %}{% set n.x = n.x | replace('a', 'aa') %}{% endfor %}"
    ),
    "join": "{{ (['a' * 1000] * 1000) | join('b' * 10000) }}",
    "join by a method": "{{ ('b' * 10000).join(['a'] * 10000) }}",
    "join in a loop": (
        GROW + "{% for i in range(99) %}{% set n.x = n.x | list | join(n.x) %}{% endfor %}"
    ),
    "escape": "{{ ('&' * 1900000) | escape }}",
    "escape after safe": "{{ ('a' | safe) + '&' * 1900000 }}",
    "safe times number": "{{ ('&' | safe) * 1900000 }}",
    "upper": "{{ ('ΐ' * 900000) | upper }}",
    "urlencode": "{{ ('é' * 1900000) | urlencode }}",
    "round": "{{ 1.5 | round(10**9) }}",
    "round up": "{{ 1.5 | round(10**9, 'ceil') }}",
    "batch": "{{ [1] | batch(10**9, 1) | list }}",
    "slice": "{{ [1] | slice(10**9, 1) | list }}",
    "xmlattr": "{{ {'a': 'b' * 1900000} | xmlattr }}",
    "pprint": LIST + "{{ l | pprint }}",
    "truncate": "{{ 'a' | truncate(10**9, end='b' * 10**6) }}",
    "random": LIST + "{{ l | random }}",
    # Doubling.
    "doubling by +": GROW + "{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling by ~": GROW + "{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling by a macro": (
        "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set n = namespace(x='a') %}"
        "{% for i in range(99) %}{% set n.x = f(n.x) %}{% endfor %}"
    ),
    "doubling by a set block": (
        GROW
        + (
            "{% for i in range(99) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}"
            "{% endfor %}"
        )
    ),
    "doubling by a call block": (
        "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}"
        + "{% call f() %}" * 15
        + "aaaaaaaaaa"
        + "{% endcall %}" * 15
    ),
    "doubling by a filter block": (
        "{% filter replace('a', 'aa') %}" * 15 + "{{ 'a' * 9999 }}" + "{% endfilter %}" * 15
    ),
    "doubling of lists": (
        GROW + "{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}{{ n.l | length }}"
    ),
    "lists in lists": (
        GROW + "{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}"
    ),
    "lists in dicts": (
        GROW
        + (
            "{% for i in range(60) %}{% set n.l = {'a': n.l, 'b': n.l} %}{% endfor %}"
            "{{ n.l | tojson }}"
        )
    ),
    "lists in tuples": (
        GROW + "{% for i in range(60) %}{% set n.l = (n.l, n.l) %}{% endfor %}{{ n.l ~ '' }}"
    ),
    "lists by dict()": (
        GROW
        + (
            "{% for i in range(60) %}{% set n.l = dict(a=n.l, b=n.l) %}{% endfor %}"
            "{{ n.l | string }}"
        )
    ),
    "lists in * lists": (
        GROW + "{% for i in range(60) %}{% set n.l = [n.l] * 2 %}{% endfor %}{{ n.l }}"
    ),
    "comparing lists in lists": (
        "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}"
        "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}"
    ),
    "namespaces in namespaces": (
        "{% set n = namespace(x=1) %}{% for i in range(60) %}"
        "{% set n = namespace(a=n, b=n) %}{% endfor %}{{ n }}"
    ),
    "a namespace in itself": (
        "{% set n = namespace() %}{% set n.a = n %}{% set n.b = [n, n] %}{{ n }}{{ n.b }}"
        "{{ [n.b, n.b] | string }}"
    ),
    "nested by a namespace": (
        "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x] %}"
        "{% endfor %}{{ n.x }}"
    ),
    "keeping slices": (
        BIG
        + (
            "{% set n = namespace(l=[]) %}{% for i in range(99999) %}"
            "{% set n.l = [n.l, b[1:]] %}{% endfor %}"
        )
    ),
    "keeping texts": (
        "{% set n = namespace(l=[]) %}{% for i in range(99999) %}"
        "{% set n.l = n.l + ['a' * i] %}{% endfor %}"
    ),
    "keeping dicts": (
        "{% set n = namespace(l=[]) %}{% for i in range(99999) %}"
        "{% set n.l = [n.l, {'a': i, 'b': i, 'c': i}] %}{% endfor %}"
    ),
    "keeping lists in names": LIST + "".join(f"{{% set a{i} = l + [{i}] %}}" for i in range(3000)),
    "keeping set blocks": (
        "".join(f"{{% set a{i} %}}{{{{ 'é' * 900000 }}}}{{% endset %}}" for i in range(2000))
    ),
    # Time in one operation.
    "search from the right": BIG + "{{ b.rfind('b' + 'a' * 900000) }}",
    "partition from the right": BIG + "{{ b.rpartition('b' + 'a' * 900000) }}",
    "split from the right": BIG + "{{ b.rsplit('b' + 'a' * 900000) }}",
    "search": BIG + "{{ b.find('a' * 900000 + 'b') }}",
    "strip of many": BIG + "{{ b.strip('b' * 900000 + 'c') }}",
    "trim of many": BIG + "{{ b | trim('b' * 900000 + 'c') }}",
    "searches in an expression": BIG + "{{ " + " or ".join(["'aaaaaaaab' in b"] * 160) + " }}",
    "comparisons in an expression": (
        LIST
        + "{% set m = l + [1] %}{% set k = l + [2] %}{{ "
        + " or ".join(["m == k"] * 160)
        + " }}"
    ),
    "searches in a loop": BIG + "{% for i in range(99999) %}{{ 'aaaaaaaab' in b }}{% endfor %}",
    "items in a list": LIST + "{% for i in l %}{{ 'a' in l }}{% endfor %}",
    "sorting": LIST + "{% for i in l %}{% set x = l | sort(reverse=true) %}{% endfor %}",
    "sorting long texts": (
        "{% set t = 'a' * 100000 %}{% for i in range(9999) %}"
        "{% set x = [t + 'b', t + 'c', t + 'a'] | sort %}{% endfor %}"
    ),
    "unique": LIST + "{% for i in l %}{% set x = l | unique | list %}{% endfor %}",
    "slices": BIG + "{% for i in range(99999) %}{% set x = b[::-1] %}{% endfor %}",
    "splitting": BIG + "{% for i in range(99999) %}{% set x = b.split('a') %}{% endfor %}",
    "reversing": LIST + "{% for i in l %}{% set x = l | reverse %}{% endfor %}",
    "int of a long text": "{{ ('9' * 1900000) | int }}",
    "int of a long hex text": "{{ ('f' * 1900000) | int(base=16) // 3 }}",
    "powers": "{{ 9 ** 9 ** 9 }}",
    "squares": (
        "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}"
        "{% endfor %}{{ n.x }}"
    ),
    "a long number": "{{ " + "9" * 100_000 + " }}",
    "a float": "{{ 1e308 * 10 }}{{ (1e308 * 10) | int }}",
    # Loops.
    "loop in loop": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "filtered loop": (
        "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}"
    ),
    "recursive loop": (
        "{% for i in [1] recursive %}{% for j in range(99999) %}{% endfor %}"
        "{{ loop([1] * 10) }}{% endfor %}"
    ),
    "macro calls itself": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "macros call macros": (
        "".join(
            f"{{% macro f{i}() %}}{{{{ f{i + 1}() }}}}{{{{ f{i + 1}() }}}}{{% endmacro %}}"
            for i in range(60)
        )
        + "{% macro f60() %}{% endmacro %}{{ f0() }}"
    ),
    "blocks": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "lazy maps": (
        LIST
        + (
            "{% for i in l %}{{ l | map('upper') | map('lower') | select | list | length }}"
            "{% endfor %}"
        )
    ),
    "maps of maps": (
        "{% set n = namespace(x=[1, 2]) %}{% for i in range(5000) %}"
        "{% set n.x = n.x | map('string') %}{% endfor %}{{ n.x | list }}"
    ),
    "items of a range": "{% for i in range(99999) %}{{ range(99999) | list | length }}{% endfor %}",
    "length of a loop": (
        "{% for i in range(99999) %}{% for j in range(99999) | map('string') %}"
        "{{ loop.length }}{% break %}{% endfor %}{% endfor %}"
    ),
    "endless output": "{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}",
    "output of a constant": "{% for i in range(99999) %}" + "a" * 99_999 + "{% endfor %}",
    "loops of cycles": "{% for i in range(99999) %}{{ loop.cycle(*range(99999)) }}{% endfor %}",
    # The compiler.
    "a long template": "a" * 10_000_000,
    "many parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "many brackets": "{{ " + "[" * 150 + "]" * 150 + " }}",
    "many nots": "{{ " + "not " * 50_000 + "1 }}",
    "many minuses": "{{ " + "-" * 50_000 + "1 }}",
    "nested loops": "{% for i in [1] %}" * 50 + "{% endfor %}" * 50,
    "nested conditions": "{% if 1 %}" * 400 + "{% endif %}" * 400,
    "many conditions": "{% if a %}{% endif %}" * 10_000,
    "many elifs": "{% if a %}" + "{% elif a %}" * 10_000 + "{% endif %}",
    "many names": "".join(f"{{{{ a{i} }}}}" for i in range(20_000)),
    "many assignments": "".join(f"{{% set a{i} = {i} %}}" for i in range(10_000)),
    "many macros": "".join(f"{{% macro m{i}() %}}{{% endmacro %}}" for i in range(6_000)),
    "many loops": "{% for i in a %}{% endfor %}" * 9_000,
    "many blocks": "".join(f"{{% block b{i} %}}{{% endblock %}}" for i in range(7_000)),
    "many comments": "{# a #}" * 40_000,
    "many openings": "{{" * 140_000,
    "many comment openings": "{#" * 140_000,
    "many raw blocks": "{% raw %}" * 30_000,
    "many dashes": "{%-" * 90_000,
    "many white lines": "\n \n" * 90_000 + "{% if a %}",
    "white space before tags": (" " * 1_000 + "{%- if a %}{% endif %}") * 250,
    "a long list": "{{ [" + "1," * 100_000 + "] }}",
    "constants folded": "{{ " + " ~ ".join(["'a' | replace('a', 'aaaaaaaaa')"] * 160) + " }}",
    "a large constant folded": (
        "{{ 'a' | replace('a', 'b' | replace('b', '"
        + "c" * 99_999
        + "')) | upper | lower | list | join('"
        + "d" * 99_999
        + "') }}"
    ),
    # The way out.
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr": "{{ '' | attr('__class__') }}",
    "map of attributes": "{{ [''] | map(attribute='__class__') | list }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "the loader": "{{ self.__init__.__globals__ }}",
    "context": "{{ context }}{{ environment }}",
    "step": "{{ self._TemplateReference__context.step(-10**9) }}",
    "a namespace's class": "{{ namespace().__class__ }}{{ namespace(a=1).__init__ }}",
    "autoescape": "{% autoescape true %}{{ '&' * 1900000 }}{% endautoescape %}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as x %}",
    "extends": "{% extends '/etc/passwd' %}",
    "changing a message": (
        "{{ messages.append(1) }}{{ messages[0].update({'role': 'x'}) }}"
        "{{ messages[0].pop('role') }}"
    ),
    "a message that is a method": "{{ messages[0].setdefault('x', 1) }}",
    "a method of a method": "{{ ''.upper.__self__ }}",
    "a float's method": "{{ (1.5).hex() }}",
    "bytes": "{{ 'a'.encode() * 10**10 }}",
    "casting": "{{ (10**18).to_bytes(10**9, 'big') }}",
    "raise of much": "{{ raise_exception('a' * 1900000) }}",
}
