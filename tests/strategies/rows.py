"""The table of the contract tests: every strategy that trains by gradient descent. Adding a strategy adds a row."""

from tuneoff.strategies.peft import METHODS

# options and learning rates that suit a tiny model
_OPTIONS = {
    "oft": ":oft_block_size=4",
    "fourierft": ":n_frequency=20",
    "waveft": ":n_frequency=20",
    "road": ":group_size=4",
    "gralora": ":r=4",
}
_LEARNING_RATES = {"ia3": 1e-1, "oft": 1e-1, "boft": 1e-1, "ln_tuning": 1e-1, "randlora": 1e-2}

# strategy, the learning rate at which a tiny random model learns the toy set, the first block that trains
ROWS = [
    ("head", 1e-1, 2),
    ("partial:layers=1", 1e-2, 1),
    ("bitfit", 1e-1, 0),
    ("lora:targets=query+value+up+down", 3e-2, 0),
    ("lora:layers=[1]:dropout=0.1", 3e-2, 1),
    ("lora:bias=all:lora_plus=16", 3e-3, 0),
    ("lora:bias=lora_only:init=gaussian:layers=[1]", 3e-2, 1),
    ("lora:init=pissa:rank=4", 3e-2, 0),
    ("lora:init=olora:rank=4:bias=lora_only", 3e-2, 0),
    ("lora:init=orthogonal", 3e-2, 0),
    ("adapter:reduction=2", 3e-2, 0),
    ("adapter:reduction=2:placement=houlsby", 3e-2, 0),
    ("adapter:reduction=2:placement=parallel", 1e-2, 0),
    ("adapter:layers=[1]:reduction=2:placement=parallel:scale=1", 1e-2, 1),
    *[(f"peft:type={kind}{_OPTIONS.get(kind, '')}", _LEARNING_RATES.get(kind, 3e-2), 0) for kind in METHODS],
    ("peft:type=dora:layers=[1]", 3e-2, 1),
    ("full", 1e-2, 0),
    ("full:layer_decay=0.8", 1e-2, 0),
]
STRATEGY_NAMES = [strategy for strategy, *_ in ROWS]
