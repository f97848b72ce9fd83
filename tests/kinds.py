"""Answers by kind that a grader meets: those to accept, and near ones to refuse, as (gold, answer).

An answer with a box in it is a whole text; any other one is boxed.
"""

Pairs = list[tuple[str, str]]

ACCEPTED: dict[str, Pairs] = {
    "several boxes": [
        ("1, 2", r"$\boxed{1}$ and $\boxed{2}$"), ("3, -3", r"so \boxed{3} or \boxed{-3}."),
        ("2, 5, 7", r"\boxed{2}, \boxed{5}, \boxed{7}"), ("x=1, x=4", r"\boxed{x=1}, \boxed{x=4}"),
        ("-1, 6", "first \\boxed{6}\nthen \\boxed{-1}"), ("7", r"\boxed{7}, that is \boxed{7}"),
        (r"\frac12, 3", r"\boxed{3} and \boxed{\frac{1}{2}}"), ("8", r"\boxed{8} = \boxed{8.0}"),
        ("(1,2), (3,4)", r"\boxed{(1,2)} and \boxed{(3,4)}"), ("4, 9", r"\boxed{4}\boxed{9}"),
        (r"\sqrt{2}, -\sqrt{2}", r"\boxed{\sqrt2}, \boxed{-\sqrt2}"),
    ],
    "named quantities": [
        ("1", "|AB| = 1"), ("12", "AB = 12"), ("7", "f(3) = 7"), (r"\frac{3}{5}", r"\sin A = 3/5"),
        ("40", r"\text{Area} = 40"), ("60", r"\angle ABC = 60^\circ"), ("9", "a_{10} = 9"),
        ("9", "S_5 = 9"), (r"\frac14", r"P(A) = \frac14"), ("2", r"\overline{AB} = 2"),
        ("-4", "g(-4) = -4"), ("6", r"\text{total} = 6"), ("5", "n = 5"), ("13", "[ABC] = 13"),
    ],
    "sentences": [
        ("5", r"\text{The answer is } 5"), ("5", "The total cost is $5"), ("5", "the sum is 5."),
        ("12", r"\text{He has } 12"), ("40", r"The price equals \$40"), ("18", "Total: 18"),
        ("7", "Final answer: 7"), ("3", r"\text{The number of cats is } 3"), ("9", "She pays $9."),
        ("72", "The average speed is 72 km/h"), (r"\frac12", r"\text{The value is } \frac12"),
    ],
    "sentences in other languages": [
        ("5", "La respuesta es 5"), ("5", "Die Antwort ist 5"), ("5", "La réponse est 5"),
        ("5", "La risposta è 5"), ("5", "A resposta é 5"), ("5", "答案是5"), ("5", "答案：5"),
        ("5", "答えは5です"), ("5", "정답은 5입니다"), ("5", "Ответ: 5"), ("12", "El total es 12."),
        ("9", "Die Summe beträgt 9"), ("4", "Le résultat est 4"),
    ],
    "currencies": [
        ("5", "€5"), ("5", "5 €"), ("12.5", "£12.50"), ("1200", "¥1,200"), ("30", "₹30"),
        (r"\$8", "8 dollars"), ("8", r"\$8.00"), ("8", "8 USD"), ("7", "7 euros"), ("9", "￥9"),
        ("5", r"\text{€}5"), (r"\$1,000", "$1000"),
    ],
    "decimal commas": [
        ("1.5", "1,5"), ("0.25", "0,25"), ("3.14", "3{,}14"), ("-2.5", "-2,5"), ("12.75", "12,75"),
        ("0.5", r"0{,}5"), ("1234.56", "1.234,56"), ("1234567", "1.234.567"), ("2.5", "2,5"),
        ("1234", "1'234"), ("99.9", "99,9"), ("0.0625", "0,0625"),
    ],
    "percent words": [
        (r"12\%", "12 percent"), (r"12\%", "12 pct"), ("12", "12 percent"), ("0.5", "50 percent"),
        (r"30\%", r"30\text{ percent}"), (r"5\%", "0.05"), (r"\frac14", "25 percent"),
        (r"7.5\%", "7.5 percent"), (r"80\%", r"80 \text{ percentage}"), (r"20\%", "20％"),
        (r"45\%", r"\text{45 percent}"), ("60 percent", r"60\%"),
    ],
    "intervals": [
        (r"(2,\infty)", r"\{x \mid x > 2\}"), (r"(2,\infty)", r"\{x : x > 2\}"),
        (r"\{x : x>2\}", "x>2"), ("[1,3)", r"\{x | 1 \le x < 3\}"), ("[1,3)", r"1\le x<3"),
        (r"(-\infty,4]", r"\{t \in \mathbb{R} \mid t \leq 4\}"), (r"x\ge 0", r"[0,\infty)"),
        (r"(0,1)", r"\{y \in \mathbb R : 0 < y < 1\}"), (r"x\ge 0", r"\{x : x \ge 0\}"),
        (r"(-\infty,0)\cup(0,\infty)", r"\mathbb{R} \setminus \{0\}"), (r"[5,\infty)", "x≥5"),
    ],
    "ratios": [
        ("3:2", r"\frac32"), (r"\frac{3}{2}", "3:2"), ("1:4", "1/4"), ("5:7", r"\frac{5}{7}"),
        ("3 : 2", "3:2"), ("1:2", "1：2"), (r"\frac{7}{9}", "7 : 9"), ("2:5", r"\dfrac{2}{5}"),
        ("4:1:2", "4:1:2"), ("11:3", "11/3"), ("9:8", "9∶8"),
    ],
    "degrees and radians": [
        (r"90^\circ", r"\frac{\pi}{2}"), (r"\frac{\pi}{3}", r"60^\circ"), (r"180^\circ", r"\pi"),
        (r"45^\circ", r"\frac{\pi}{4}\text{ radians}"), (r"\frac{\pi}{6}", "30 degrees"),
        (r"120^\circ", r"\frac{2\pi}{3}"), (r"2\pi", r"360^\circ"), (r"\frac{\pi}{2}", "90°"),
        (r"\frac{3\pi}{4}", r"135^{\circ}"), (r"270^\circ", r"\frac{3\pi}{2}"), ("90", r"90^\circ"),
    ],
    "times of day": [
        (r"4:30\text{ p.m.}", "4:30 PM"), ("4:30 p.m.", "16:30"), ("4:30 pm", r"4:30\text{ p.m.}"),
        (r"9:05 \text{ a.m.}", "9:05 AM"), ("6:30", r"6\!:\!30"), ("12:15 p.m.", "12:15 PM"),
        ("3 p.m.", "3:00 PM"), ("11:45", "11:45 p.m."), ("16:30", "4:30 p.m."), ("7:00", "7:00 am"),
        ("8:20 AM", "08:20"),
    ],
    "choices": [
        (r"\text{(E)}", "E"), (r"\text{(B)}", r"\text{(B)}\ 5"), ("(C)", "C"), ("(A)", "A. five"),
        (r"\textbf{(D)}", "(D) 12"), (r"\text{B}", "B) the second"), ("(B) 7", "B"),
        (r"\text{(A)}", "option A"), ("(C)", r"\textbf{(C)}\ 9"), (r"\mathrm{(E)}", "E: none"),
        ("(D)", "Answer D"),
    ],
    "doubled backslashes": [
        (r"\frac12", r"\\frac{1}{2}"), (r"2\sqrt{3}", r"2\\sqrt{3}"), (r"\pi", r"\\pi"),
        (r"\frac{\sqrt2}{3}", r"\\frac{\\sqrt{2}}{3}"), (r"3\pi", r"3\\pi"),
        (r"(2,\infty)", r"(2,\\infty)"), (r"5\text{ cm}", r"5\\text{ cm}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
        (r"90^\circ", r"90^\\circ"), (r"\text{even}", r"\\text{even}"), (r"12\%", r"12\\%"),
        (r"\left(1,2\right)", r"\\left(1,2\\right)"),
    ],
    "numbers times matrices": [
        (r"\begin{pmatrix}1/2\\3/2\end{pmatrix}", r"\frac{1}{2}\begin{pmatrix}1\\3\end{pmatrix}"),
        (r"2\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\4\end{pmatrix}"),
        (r"\begin{pmatrix}-1\\2\end{pmatrix}", r"-\begin{pmatrix}1\\-2\end{pmatrix}"),
        (r"\begin{pmatrix}3&6\\0&3\end{pmatrix}", r"3\begin{pmatrix}1&2\\0&1\end{pmatrix}"),
        (r"\frac15\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1/5\\2/5\end{pmatrix}"),
        (r"\begin{pmatrix}0.5\\1\end{pmatrix}", r"\frac12\begin{bmatrix}1\\2\end{bmatrix}"),
        (r"\begin{pmatrix}4\\8\end{pmatrix}", r"4\cdot\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\begin{pmatrix}4\\8\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}\cdot 4"),
        (r"\begin{pmatrix}-3\\9\end{pmatrix}", r"-3\begin{pmatrix}1\\-3\end{pmatrix}"),
        (r"\begin{pmatrix}k\\2k\end{pmatrix}", r"k\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
    "typography": [
        ("(1,2)", "（1,2）"), ("1,2", "1，2"), ("x=5", "x＝5"), ("5", "5；"), ("-5", "−5"),
        ("-5", "–5"), ("12", "１２"),
        ("1234", "1\u202f234"), ("5", "\ufeff5"), ("5", r"\mathbf{5}"),
        ("10000", "10\u2009000"), (r"\frac13", "0.(3)"), (r"\frac13", "0.3\u0305"), ("5", "5。"),
        (r"\frac13", r"0.\bar{3}"), (r"\frac{4}{11}", r"0.\overline{36}"), ("x^4", "x⁴"),
    ],
    "units": [
        (r"5\text{ miles per hour}", r"5\text{ mph}"), (r"5\text{ km/h}", r"5\text{ km per hour}"),
        ("5 mph", "5 mi/h"), ("5 km/h", "5 kph"), ("5 m/s", "5 meters per second"), ("5", "5 mph"),
        (r"3\text{ ft}", "3 feet"), (r"2\text{ L}", "2 liters"), (r"9\text{ kg}", "9 kilograms"),
        (r"60\text{ miles/hour}", "60 mph"), (r"8\text{ square feet}", r"8\text{ ft}^2"),
    ],
    "words": [
        (r"\text{cat}", "cat"), (r"\text{iii}", "iii"), (r"\text{No}", "no"), ("dog", "Dog"),
        (r"\text{two lines}", "two lines"), ("Evelyn", r"\textbf{Evelyn}"), ("red", r"\text{Red}"),
        (r"\text{(iv)}", "iv"), ("twenty-one", r"\text{twenty-one}"),
        (r"\text{June 20}", "June 20"),
        ("well-known", "well-known"), (r"\text{sun}", r"\mathrm{sun}"),
    ],
    "dates and ranges": [
        ("2024-01-10", "2024-01-10"), ("2024-01-10", "2024-1-10"), ("3-5", "3–5"),
        ("3-5", "3 to 5"),
        ("01/02/2024", "1/2/2024"), ("2024-01-10", "2024/01/10"), ("10-20", r"\text{10-20}"),
        ("24.12.2023", "24.12.2023"), ("1999-12-31", r"\text{1999-12-31}"), ("7-9", "7 - 9"),
    ],
    "worked out otherwise": [
        (r"\frac56", r"\frac{10}{12}"), ("0.5", r"\frac12"), (r"\sqrt{8}", r"2\sqrt2"),
        ("4", "4.0"),
        (r"\frac{\sqrt3}{3}", r"\frac{1}{\sqrt3}"), ("35000", r"3.5\times 10^4"), ("6", "2+4=6"),
        (r"1\frac12", r"\frac32"), ("2+3i", "3i+2"), (r"1+\sqrt2", r"\sqrt{2}+1"), ("x=4", "4"),
        (r"\frac{\pi}{4}", r"0.25\pi"), (r"x-\frac12", r"\frac{2x-1}{2}"), ("1000000", "10^6"),
        (r"\sin 30^\circ", r"\frac12"), ("2^{10}", "1024"), (r"\binom52", "10"), ("2x>4", "x>2"),
    ],
}  # fmt: skip

REFUSED: dict[str, Pairs] = {
    "copies of numbers": [
        ("13", r"2\cdot 9-5"), ("19", "(2*(8+10))-17"), ("9996", r"98 \times 102"), ("3", "6/2"),
        ("-243", "(-27)^{5/3}"), ("90", r"\frac{11!}{9! + 2\cdot 8!}"), ("1024", "2^{10}"),
        ("-1", r"\sin \left( -\frac{\pi}{2} \right)"), ("4", r"\sqrt{16}"), ("5", "|3+4i|"),
        (r"\frac56", r"\frac12+\frac13"), ("12", r"\frac12 \cdot 24"), ("2", r"\gcd(4,6)"),
        ("10", r"\binom{5}{2}"), ("0", "3x-3x"), ("3", r"\log_2 8"), ("1", r"\sin^2x+\cos^2x"),
        (r"\frac16", r"\frac{\frac12}{3}"), ("-2", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}"),
        ("(3,4)", "(1+2,4)"), ("1, 2", "1, 5-3"), (r"\frac34", r"1-\frac14"), ("25", r"5^2"),
        (r"7\sqrt2", r"\sqrt{50}+\sqrt8"), (r"\sqrt6", r"\sqrt2\sqrt3"), ("2i", "(1+i)^2"),
    ],
    "copies of polynomials": [
        ("x+12", "x+3+9"), ("13x+2", "8x+7+5x-5"), ("3x+5", "3(x+1)+2"), ("x^2+2x+1", "(x+1)^2"),
        ("(x-2)(x+2)", "x^2-4"), ("6x", r"2x \cdot 3"), ("x^2", r"x\cdot x"), ("8x^3", "(2x)^3"),
        ("x+1", r"\frac{x^2-1}{x-1}"), ("2x", "x+x"), ("3a+3b", "3(a+b)"), ("4x-2", "6x-2x-2"),
        ("5x(x+1)", "5x^2+5x"), ("n", r"\frac{n!}{(n-1)!}"), ("x^2+x", "x(x+1)"),
    ],
    "equations not solved": [
        ("4", "3x-2=10"), ("x=4", "3x-2=10"), ("x=4", "2x=8"), ("4", "x+1=5"), ("x>2", "2x>4"),
        ("x=3", "x-3=0"), ("5", "|x|=5"), ("x=2", "x=6/3"), ("x=2", "x^2=4"), ("x<1", "3x<3"),
        ("y=7", "14=2y"), ("-3", "x^2+6x+9=0"), ("6", "2+2=6"),
    ],
    "words as mathematics": [
        (r"\text{cat}", r"\text{act}"), (r"\text{dog}", r"\text{god}"), (r"\text{iii}", "-i"),
        (r"\text{(iv)}", r"\text{(vi)}"), (r"\text{sun}", r"\text{nus}"), ("ix", "xi"),
        ("cat", "act"), ("dog", "god"), (r"\text{two lines}", r"\text{lines two}"),
        ("dog bites man", "man bites dog"), ("ten", "net"), ("well-known", "known-well"),
        (r"\text{bca}", r"\text{abc}"), ("tea", "eat"), ("yes", "-yes"),
    ],
    "dates and ranges as mathematics": [
        ("2024-01-10", "2013"), ("2013", "2024-01-10"), ("3-5", "-2"), ("-2", "3-5"),
        ("10-20", "-10"),
        ("1/2/2024", r"\frac{1}{4048}"), ("2024-01-10", "2024-10-01"), ("12/25/2020", "12/24/2020"),
        ("3-5", "5-3"), ("2024-01-10", "2024-10-1"), ("7-9", "9-7"), ("24.12.2023", "24.12"),
    ],
    "numbers of other countries": [
        ("1234", "1.234"), ("1.234", "1,234"), ("1.5", "15"), ("1,5", "1.5"), ("1.5", "1, 5"),
        ("1234.56", "1,234,56"), ("2", "2,5"), ("12.5", "1,25"), ("1000", "1.000"), ("0.5", "0, 5"),
    ],
    "near misses of accepted kinds": [
        ("1, 2", r"\boxed{1}, \boxed{2}, \boxed{3}"), ("5", r"\boxed{5} or \boxed{6}"),
        ("5", "|AB| = 6"), ("5", "The answer is not 5"), ("5", "less than 5"), ("5", "about 5"),
        ("5", "The answer is 5 or 6"), (r"\$5", "€5"), (r"12\%", "13 percent"), ("3:2", "2:3"),
        (r"(2,\infty)", r"\{x \mid x \ge 2\}"), (r"90^\circ", r"\frac{\pi}{3}"),
        ("90", r"\frac{\pi}{2}"),
        ("4:30 p.m.", "4:30 a.m."), ("4:30 p.m.", "4:03 p.m."), ("16:30", "4:30 am"),
        ("(A)", "(B) A"),
        (r"\text{(A)}", "A or B"), ("5 mph", "5 km/h"), ("5", "La respuesta no es 5"),
        (r"\begin{pmatrix}2\\4\end{pmatrix}", r"2\begin{pmatrix}1\\4\end{pmatrix}"),
        (r"\begin{pmatrix}4\\6\end{pmatrix}",
         r"\begin{pmatrix}1\\2\end{pmatrix}+\begin{pmatrix}3\\4\end{pmatrix}"),
    ],
    "golds that cannot be read": [
        ("x<sup>2</sup>", "x<sup>3</sup>"), ("x<sup>2</sup>", "x"), ("10<sup>6</sup>", "10^7"),
        (r"\foo{3}", r"\foo{4}"), (r"\int x dx", r"\int y dy"), ("<b>5</b>", "<b>6</b>"),
        ("x<sub>1</sub>", "x<sub>2</sub>"), (r"\lim_{x} 3", "3"), ("5<br>6", "5<br>7"),
        ("3 @ 4", "7"),
    ],
}  # fmt: skip
