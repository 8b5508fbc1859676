"""What a rejects file promises: one form for what we reject and what DPS refuses."""

from __future__ import annotations

import csv
import io

from vaccinations.formats.rejects import HEADER, RejectsWriter
from vaccinations.model.problems import Problem


def test_a_rejects_file_has_a_header_even_where_it_lists_nothing() -> None:
    file = io.StringIO(newline="")
    RejectsWriter(file)
    assert file.getvalue() == "line,column,what is wrong,what would be right\r\n"


def test_each_fault_is_a_row_that_any_csv_reader_reads_back() -> None:
    file = io.StringIO(newline="")
    rejects = RejectsWriter(file)
    rejects.write(7, "", 'DPS refused it (other): "a", b', "send it\nagain")
    rejects.write_problem(9, Problem("PERSON_DOB", "is missing", "the date of birth"))
    assert list(csv.reader(io.StringIO(file.getvalue(), newline=""))) == [
        list(HEADER),
        ["7", "", 'DPS refused it (other): "a", b', "send it\nagain"],
        ["9", "PERSON_DOB", "is missing", "the date of birth"],
    ]
