"""Files that a study names besides its data: predictions, training logs, and test sets from elsewhere.

Of a file that is gone the stored copy is read, so that a study can be repeated without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tuneoff.data.dataset import Dataset, is_multilabel, label_counts, labels_of
from tuneoff.data.other_tests import OtherTest, load_other_test
from tuneoff.data.predictions import match_predictions, read_predictions
from tuneoff.files import check_new_name
from tuneoff.runs import StoredTest, StudyStore
from tuneoff.spec.stated import ImportedSpec, PredictionsSpec
from tuneoff.spec.study import StudySpec
from tuneoff.trainer_logs import TrainerLog, read_trainer_log


@dataclass(frozen=True)
class Given:
    """The files that a study names, and the store that may have copies of them."""

    spec: StudySpec
    store: StudyStore

    def predictions(
        self, entries: Sequence[PredictionsSpec], test: pa.Table, label_names: tuple[str, ...]
    ) -> dict[str, pa.Table]:
        """Read and check predictions of a test split, by name. Raises DataError."""
        metric = self.spec.ranking_metric(self.spec.metric_options(label_names, is_multilabel(test)))
        options, tables = (test, label_names, self.spec.data, metric), {}
        for entry in entries:
            if not self.store.has_predictions(entry.name):
                check_new_name(f"{entry.name}.parquet")
            if not Path(entry.file).expanduser().is_file() and self.store.has_predictions(entry.name):
                matched = match_predictions(entry.name, self.store.read_predictions(entry.name), *options)
            else:
                matched = read_predictions(entry.name, entry.file, *options)
            tables[entry.name] = matched.table(test, label_names)
        return tables

    def logs(self, entries: Sequence[ImportedSpec]) -> dict[str, TrainerLog]:
        """Read training logs, by name. Raises DataError."""
        logs = {}
        for entry in entries:
            if not self.store.has_imported(entry.name):
                check_new_name(f"{entry.name}.json")
            is_gone = not Path(entry.file).expanduser().exists() and self.store.has_imported(entry.name)
            logs[entry.name] = (
                self.store.read_imported(entry.name) if is_gone else read_trainer_log(entry.name, entry.file)
            )
        return logs

    def tests(self, dataset: Dataset) -> list[OtherTest]:
        """Read the test sets from elsewhere. Raises DataError, in one line."""
        stored = {test.name: test for test in self.store.read_tests()}
        tests = []
        for name, options in self.spec.tests.items():
            if name not in stored:
                check_new_name(f"{name}.parquet")
            is_gone = ":" not in options.source and not Path(options.source).expanduser().exists()
            if is_gone and name in stored and stored[name].source == options.source:
                of_store = stored[name]
                table = self.store.test_set_table(name)
                tests.append(OtherTest(name, of_store.source, table, of_store.fingerprint, tuple(of_store.notes)))
            else:
                tests.append(load_other_test(name, options, dataset, self.spec.data))
        return tests


def store_tests(tests: Sequence[OtherTest], num_labels: int, store: StudyStore) -> None:
    """Store test sets from elsewhere, with their examples."""
    described = [
        StoredTest(
            test.name,
            test.source,
            test.fingerprint,
            test.table.num_rows,
            label_counts(labels_of(test.table), num_labels).tolist(),
            list(test.notes),
        )
        for test in tests
    ]
    store.write_tests(described, {test.name: test.table for test in tests})
