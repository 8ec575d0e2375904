"""Records become what JSON has."""

import json
import math

from residuum.records import Measurement, plain


def test_a_value_that_json_lacks_becomes_null() -> None:
    record = {"loss": Measurement(math.nan, "nats"), "list": (1.5, math.inf, "x", None, True)}
    text = json.dumps(plain(record), allow_nan=False)
    assert json.loads(text)["loss"]["value"] is None
    assert json.loads(text)["list"] == [1.5, None, "x", None, True]
