import pickle

import pytest

from u2net_tf.errors import InputError


class TestInputError:
    def test_message(self):
        error = InputError("plan.json: seed", expected="a number", received=[1])
        assert str(error) == "plan.json: seed: expected a number. Received: [1]"

    def test_hint(self):
        error = InputError(
            "`keep`", expected="a number", received=None, hint="Use `keep`=3"
        )
        assert str(error) == "`keep`: expected a number. Received: None. Use `keep`=3"

    @pytest.mark.parametrize(
        ("received", "shown"),
        [
            (list(range(2002)), "0, 1, 2, 3, 4 and 1,997 more"),
            (dict.fromkeys("abcdef"), "a, b, c, d, e and 1 more"),
            ([1, 2, 3, 4, 5], "[1, 2, 3, 4, 5]"),
            ("x" * 64_000, "x" * 400 + "…"),
            ("x" * 400, "x" * 400),
            ("x\n" + "y" * 401 + "\nz", "x\n" + "y" * 400 + "…\nz"),
        ],
    )
    def test_message_is_short(self, received, shown):
        error = InputError("a", expected="b", received=received)
        assert str(error) == f"a: expected b. Received: {shown}"
        assert error.received == received
        if isinstance(received, str):
            error = InputError("a", expected=received, received="c")
            assert str(error) == f"a: expected {shown}. Received: c"

    def test_a_name_with_a_newline_stays_on_its_line(self):
        error = InputError("a\n\x1b北 \udcff.nii", expected="b", received="c")
        shown = r"a\n\x1b北 \udcff.nii: expected b. Received: c"
        assert str(error) == shown
        assert str(error.within("d\te")) == rf"d\te: {shown}"

    def test_control_characters_of_values_are_escaped(self):
        error = InputError("a", expected="b\x1b[2J", received="c\x9b")
        assert str(error) == "a: expected b\\u001b[2J. Received: c\\u009b"

    def test_parts(self):
        error = InputError(7, expected="a", received=[1], hint="Do it")
        assert (error.where, error.expected, error.hint) == ("7", "a", "Do it")
        assert error.received == [1]

    def test_problem_is_the_message_without_the_place(self):
        error = InputError("a.nii", expected="b", received="c", hint="Do it")
        assert error.problem == "expected b. Received: c. Do it"

    def test_within_a_file(self):
        inner = InputError("seed", expected="b", received="c", hint="Do it")
        error = inner.within("plan.json")
        assert str(error) == "plan.json: seed: expected b. Received: c. Do it"
        assert error.where == "plan.json: seed"

    def test_is_a_value_error(self):
        with pytest.raises(ValueError, match="expected b"):
            raise InputError("a", expected="b", received="c")

    def test_survives_pickling(self):
        error = InputError("a", expected="b", received=("c",), hint="Do it")
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is InputError
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)
