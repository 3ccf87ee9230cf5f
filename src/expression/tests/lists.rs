//! Lists, what is done with them, and how much of that there may be.

use super::*;

#[test]
fn lists_have_elements() {
    values(&[
        ("li", "[3, -1, 7]"),
        ("nl", "null"),
        ("[i, 1, 2.5]", "[7.0, 1.0, 2.5]"),
        ("[s, ns]", "[\"Grün\", null]"),
        ("size(li) + ls.size()", "6"),
        ("size(nl)", "null"),
        ("li[0] - li[2]", "-4"),
        ("ls[1]", "null"),
        ("li[ni]", "null"),
        ("nl[i]", "null"),
        ("li[3]", "error: there is no [3] in a list of 3"),
        ("li[-1]", "error: there is no [-1] in a list of 3"),
        ("[i][i / 0]", "error: division by zero: 7 / 0"),
        ("7 in li", "true"),
        ("7.0 in li", "true"),
        ("8 in li", "false"),
        ("\"a\" in ls", "true"),
        ("\"b\" in ls", "null"),
        ("1 in nl", "null"),
        ("ns in ls", "null"),
        ("li == [3, -1, 7]", "true"),
        ("li != [3, -1]", "true"),
        ("ls == [\"a\", ns, \"ü\"]", "true"),
        ("nl == [1.0]", "null"),
        ("nl == null", "true"),
        ("has(li)", "true"),
        ("b ? li : [ni]", "[3, -1, 7]"),
        ("b ? nl : null", "null"),
    ]);
}

#[test]
fn texts_are_split_and_joined() {
    values(&[
        ("split(\"a,b,,c\", \",\")", "[\"a\", \"b\", \"\", \"c\"]"),
        ("\"\".split(\",\")", "[\"\"]"),
        ("s.split(\"\")", "[\"G\", \"r\", \"ü\", \"n\"]"),
        ("split(ns, \",\")", "null"),
        ("size(split(\"a b\", \" \"))", "2"),
        ("join(ls, \"; \")", "\"a; ü\""),
        ("[s, s].join(ns)", "null"),
        ("join(s.split(\"r\"), \"R\")", "\"GRün\""),
    ]);
}

#[test]
fn macros_go_through_lists() {
    values(&[
        ("li.exists(x, x > 6)", "true"),
        ("li.exists(x, x > i)", "false"),
        ("li.all(x, x > -2)", "true"),
        ("li.all(x, x > 0)", "false"),
        ("nl.all(x, x > 0.0)", "null"),
        ("ls.exists(x, x == \"ü\")", "true"),
        ("ls.exists(x, x == \"b\")", "null"),
        ("ls.all(x, x != \"b\")", "null"),
        // One that decides is stronger than an error, that is stronger than null.
        ("li.exists(x, 1 / (x - 3) == 0)", "true"),
        ("li.all(x, 1 / (x - 3) == 5)", "false"),
        ("li.exists(x, 1 / (x - 3) == 5)", "error: division by zero: 1 / 0"),
        ("li.filter(x, x % 2 != 0 && x > 0)", "[3, 7]"),
        ("ls.filter(x, x < \"b\")", "[\"a\"]"),
        ("li.filter(x, 1 / (x - 3) == 5)", "error: division by zero: 1 / 0"),
        ("li.map(x, x * 2.5)", "[7.5, -2.5, 17.5]"),
        ("ls.map(x, x.size())", "[1, null, 1]"),
        ("li.map(x, li.filter(v, v < x).size())", "[1, 0, 2]"),
    ]);
    let expression = compile("li.map(x, x + ni)").unwrap();
    assert_eq!(expression.fields().len(), 2, "the variable is no field: {:?}", expression.fields());
}

/// What an expression on a list of ints and a text spends, and its value with no more than that; one unit less is too
/// little.
fn spent(source: &str, ints: &[Slot<'_>], text: &str) -> usize {
    let field = |name: &str, ty| Field { name: name.into(), ty, nullable: false, form: FieldForm::Plain };
    let schema = Schema { fields: vec![field("l", list(Type::Int, false)), field("t", Type::String)] };
    let expression = Expression::compile(source, &Scope { schema: &schema, meta: false }).unwrap();
    let (row, arena) = ([Slot::List(ints), Slot::String(text)], Bump::new());
    let of = |budget| Environment { budget: Cell::new(budget), ..Environment::new(&row, None, &arena) };
    let all = Environment::new(&row, None, &arena);
    let value = expression.eval(&all).unwrap();
    let spent = BUDGET - all.budget.get();
    assert_eq!(expression.eval(&of(spent)), Ok(value), "{source}");
    if spent > 0 {
        let environment = of(spent - 1);
        let error = expression.eval(&environment).unwrap_err();
        assert!(error.message.contains("makes or looks at too much"), "{source}: {error}");
        assert_eq!(environment.budget.get(), 0, "{source}");
    }
    spent
}

#[test]
fn what_is_made_and_looked_at_is_counted() {
    let ints: Vec<Slot<'_>> = (0..10).map(Slot::Int).collect();
    for (source, units) in [
        ("l[3] + 1 > 2 || t == \"x\" || size(l) > 3", 0),
        ("t + t", 8),
        ("t.upperAscii()", 4),
        ("[1, 2]", 2 * ELEMENT_BYTES),
        ("4 in l", 5),
        ("l.all(x, x >= 0)", 10),
        ("l.exists(x, x == 2)", 3),
        ("l.map(x, x + 1)", 10 + 10 * ELEMENT_BYTES),
        ("l.filter(x, x < 3)", 10 + 3 * ELEMENT_BYTES),
        ("l == l", 10),
        ("l.all(x, l.all(y, x + y >= 0))", 10 + 100),
        ("l.all(x, x in l)", 10 + 55),
        ("l.map(x, t + t)", 10 + 10 * (ELEMENT_BYTES + 8)),
        ("split(t, \",\")", 4 + 2 * ELEMENT_BYTES),
        ("split(t, \"\")", 4 + 4 * ELEMENT_BYTES),
        ("join(split(t, \",\"), \"; \")", 4 + 2 * ELEMENT_BYTES + 2 + 5),
    ] {
        assert_eq!(spent(source, &ints, "a,bc"), units, "{source}");
    }
}

#[test]
fn an_expression_that_makes_too_much_is_an_error_and_has_not_made_it() {
    let ints: Vec<Slot<'_>> = (0..1000).map(Slot::Int).collect();
    let (text, most) = ("a".repeat(1 << 16), 1 << 20);
    let field = |name: &str, ty| Field { name: name.into(), ty, nullable: false, form: FieldForm::Plain };
    let schema = Schema { fields: vec![field("l", list(Type::Int, false)), field("t", Type::String)] };
    let row = [Slot::List(&ints), Slot::String(&text)];
    for source in ["l.map(x, t + string(x))", "l.all(x, size(t.split(\"\")) > 0)"] {
        let expression = Expression::compile(source, &Scope { schema: &schema, meta: false }).unwrap();
        let arena = Bump::new();
        let environment = Environment { budget: Cell::new(most), ..Environment::new(&row, None, &arena) };
        let error = expression.eval(&environment).unwrap_err();
        assert!(error.message.contains("too much"), "{source}: {error}");
        assert!(arena.allocated_bytes() < 8 * most, "{source}: {}", arena.allocated_bytes());
        // What needs nothing of it still has a value.
        assert_eq!(compile("1 + 1").unwrap().eval(&environment), Ok(Slot::Int(2)));
    }
}
