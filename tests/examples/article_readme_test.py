"""The code in the article's README is that of its programs, all of it."""

import pathlib
import re
import unittest

ARTICLE = pathlib.Path("examples/article")


def _code(text):
    return [line for line in text.splitlines() if line]


class ArticleReadmeTest(unittest.TestCase):

    def setUp(self):
        readme = (ARTICLE / "README.md").read_text()
        # By program: each has a table, which begins with a link to its files.
        self.tables = dict(
            re.findall(r'<table>\n.*?href="(\w+)\.py".*?\n(.*?)</table>',
                       readme,
                       flags=re.DOTALL))

    def test_every_program_is_there(self):
        programs = {path.stem for path in ARTICLE.glob("*.cc")}
        self.assertEqual(len(programs), 3)
        self.assertEqual(set(self.tables), programs)

    def test_code_is_that_of_the_sources(self):
        for program, table in self.tables.items():
            for language, suffix in (("python", ".py"), ("cpp", ".cc")):
                blocks = re.findall(f"```{language}\n(.*?)```",
                                    table,
                                    flags=re.DOTALL)
                source = (ARTICLE / (program + suffix)).read_text()
                with self.subTest(program + suffix):
                    # Blank lines are where a block ends, too.
                    self.assertEqual(_code("".join(blocks)), _code(source))

    def test_languages_are_side_by_side(self):
        for program, table in self.tables.items():
            with self.subTest(program):
                self.assertRegex(
                    table, r"\A(<tr><td>\n\n```python\n[^`]*```\n\n"
                    r"</td><td>\n\n```cpp\n[^`]*```\n\n</td></tr>\n)+\Z")


if __name__ == "__main__":
    unittest.main()
