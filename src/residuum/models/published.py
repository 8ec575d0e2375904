"""What the papers print of their networks' sizes, with the source of each figure."""

TABLE_1 = "He et al. 2015, table 1"
MULTIPLY_ADDS: dict[str, float] = {
    "resnet18": 1.8e9,
    "resnet34": 3.6e9,
    "resnet50": 3.8e9,
    "resnet101": 7.6e9,
    "resnet152": 11.3e9,
    "plain18": 1.8e9,
    "plain34": 3.6e9,
}

TABLE_6 = "He et al. 2015, table 6"
PARAMETERS: dict[str, float] = {
    "resnet20": 0.27e6,
    "resnet32": 0.46e6,
    "resnet44": 0.66e6,
    "resnet56": 0.85e6,
    "resnet110": 1.7e6,
    "resnet1202": 19.4e6,
}
