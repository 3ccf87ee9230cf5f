//! Generated expressions against reference evaluators that are too simple to be wrong.

use proptest::prelude::*;

use super::tests::{compile, schema};
use super::*;

/// What a generated expression is made of, and how it reads.
#[derive(Clone, Debug)]
enum Logic {
    /// One of three nullable bools.
    Field(usize),
    /// `1 / zero == 1`: an error.
    Error,
    Known(bool),
    Not(Box<Logic>),
    And(Box<Logic>, Box<Logic>),
    Or(Box<Logic>, Box<Logic>),
}

/// The outcome of three-valued logic with errors.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Truth {
    True,
    False,
    Null,
    Error,
}

impl Logic {
    fn text(&self) -> String {
        match self {
            Logic::Field(index) => format!("x{index}"),
            Logic::Error => "1 / zero == 1".into(),
            Logic::Known(value) => value.to_string(),
            Logic::Not(operand) => format!("!({})", operand.text()),
            Logic::And(left, right) => format!("({} && {})", left.text(), right.text()),
            Logic::Or(left, right) => format!("({} || {})", left.text(), right.text()),
        }
    }

    fn truth(&self, fields: &[Option<bool>; 3]) -> Truth {
        let flip = |truth| match truth {
            Truth::True => Truth::False,
            Truth::False => Truth::True,
            other => other,
        };
        match self {
            Logic::Field(index) => fields[*index].map_or(Truth::Null, known),
            Logic::Error => Truth::Error,
            Logic::Known(value) => known(*value),
            Logic::Not(operand) => flip(operand.truth(fields)),
            Logic::And(left, right) => {
                let sides = [left.truth(fields), right.truth(fields)];
                let order = [Truth::False, Truth::Error, Truth::Null, Truth::True];
                order.into_iter().find(|truth| sides.contains(truth)).unwrap()
            }
            Logic::Or(left, right) => {
                let sides = [left.truth(fields), right.truth(fields)];
                let order = [Truth::True, Truth::Error, Truth::Null, Truth::False];
                order.into_iter().find(|truth| sides.contains(truth)).unwrap()
            }
        }
    }
}

fn known(value: bool) -> Truth {
    if value { Truth::True } else { Truth::False }
}

fn logic() -> impl Strategy<Value = Logic> {
    let leaf = prop_oneof![
        6 => (0..3usize).prop_map(Logic::Field),
        1 => Just(Logic::Error),
        1 => any::<bool>().prop_map(Logic::Known),
    ];
    leaf.prop_recursive(5, 32, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|operand| Logic::Not(Box::new(operand))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Logic::And(Box::new(a), Box::new(b))),
            (inner.clone(), inner).prop_map(|(a, b)| Logic::Or(Box::new(a), Box::new(b))),
        ]
    })
}

/// A number of one of the two types.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Int(i64),
    Double(f64),
}

#[derive(Clone, Debug)]
enum Sum {
    /// A literal, or a field that holds it.
    Value(Number),
    Field(usize, Number),
    Negate(Box<Sum>),
    Binary(char, Box<Sum>, Box<Sum>),
}

impl Sum {
    fn text(&self) -> String {
        match self {
            Sum::Value(Number::Int(value)) => format!("({value})"),
            Sum::Value(Number::Double(value)) => format!("({value:?})"),
            Sum::Field(index, Number::Int(_)) => format!("i{index}"),
            Sum::Field(index, Number::Double(_)) => format!("d{index}"),
            // Without the bracket the sign might become part of a literal.
            Sum::Negate(operand) => format!("-({})", operand.text()),
            Sum::Binary(op, left, right) => format!("({} {op} {})", left.text(), right.text()),
        }
    }

    fn is_int(&self) -> bool {
        match self {
            Sum::Value(number) | Sum::Field(_, number) => matches!(number, Number::Int(_)),
            Sum::Negate(operand) => operand.is_int(),
            Sum::Binary(_, left, right) => left.is_int() && right.is_int(),
        }
    }

    /// Whether the checker refuses it: `%` of doubles.
    fn is_wrong(&self) -> bool {
        match self {
            Sum::Value(_) | Sum::Field(..) => false,
            Sum::Negate(operand) => operand.is_wrong(),
            Sum::Binary(op, left, right) => {
                left.is_wrong() || right.is_wrong() || (*op == '%' && !self.is_int())
            }
        }
    }

    /// `None` for an error.
    fn value(&self) -> Option<Number> {
        let as_double = |number| match number {
            Number::Int(value) => value as f64,
            Number::Double(value) => value,
        };
        match self {
            Sum::Value(number) | Sum::Field(_, number) => Some(*number),
            Sum::Negate(operand) => match operand.value()? {
                Number::Int(value) => i64::try_from(-i128::from(value)).ok().map(Number::Int),
                Number::Double(value) => Some(Number::Double(-value)),
            },
            Sum::Binary(op, left, right) => match (left.value()?, right.value()?) {
                (Number::Int(a), Number::Int(b)) => {
                    let (a, b) = (i128::from(a), i128::from(b));
                    let value = match op {
                        '+' => a + b,
                        '-' => a - b,
                        '*' => a * b,
                        _ if b == 0 => return None,
                        '/' => a / b,
                        // The remainder is 0, but the division that it belongs to overflows.
                        _ if a == i128::from(i64::MIN) && b == -1 => return None,
                        _ => a % b,
                    };
                    i64::try_from(value).ok().map(Number::Int)
                }
                (a, b) => {
                    let (a, b) = (as_double(a), as_double(b));
                    let value = match op {
                        '+' => a + b,
                        '-' => a - b,
                        '*' => a * b,
                        _ => a / b,
                    };
                    value.is_finite().then_some(Number::Double(value))
                }
            },
        }
    }

    fn fields(&self, found: &mut Vec<Number>) {
        match self {
            Sum::Value(_) => {}
            Sum::Field(_, number) => found.push(*number),
            Sum::Negate(operand) => operand.fields(found),
            Sum::Binary(_, left, right) => {
                left.fields(found);
                right.fields(found);
            }
        }
    }

    /// Numbers the fields in the order of [`fields`](Sum::fields).
    fn number(&mut self, next: &mut usize) {
        match self {
            Sum::Value(_) => {}
            Sum::Field(index, _) => {
                *index = *next;
                *next += 1;
            }
            Sum::Negate(operand) => operand.number(next),
            Sum::Binary(_, left, right) => {
                left.number(next);
                right.number(next);
            }
        }
    }
}

fn sum() -> impl Strategy<Value = Sum> {
    let number = prop_oneof![
        (-9..10i64).prop_map(Number::Int),
        prop_oneof![Just(i64::MAX), Just(i64::MIN + 1), Just(i64::MIN), any::<i64>()].prop_map(Number::Int),
        (-9..10i32).prop_map(|value| Number::Double(f64::from(value) / 4.0)),
        prop_oneof![Just(f64::MAX), Just(f64::MIN_POSITIVE)].prop_map(Number::Double),
    ];
    let leaf =
        prop_oneof![number.clone().prop_map(|number| Sum::Field(0, number)), number.prop_map(Sum::Value),];
    leaf.prop_recursive(4, 16, 2, |inner| {
        let op = prop::sample::select(vec!['+', '-', '*', '/', '%']);
        prop_oneof![
            1 => inner.clone().prop_map(|operand| Sum::Negate(Box::new(operand))),
            4 => (op, inner.clone(), inner).prop_map(|(op, a, b)| Sum::Binary(op, Box::new(a), Box::new(b))),
        ]
    })
}

fn field(name: String, ty: Type, nullable: bool) -> crate::record::Field {
    crate::record::Field { name, ty, nullable, form: Default::default() }
}

proptest! {
    #[test]
    fn logic_follows_its_table(logic in logic(), fields in any::<[Option<bool>; 3]>()) {
        let mut schema = Schema::default();
        schema.fields.push(field("zero".into(), Type::Int, false));
        schema.fields.extend((0..3).map(|index| field(format!("x{index}"), Type::Bool, true)));
        let expression =
            Expression::compile(&logic.text(), &Scope { schema: &schema, meta: false }).expect("compiles");
        let slots = fields.iter().map(|field| field.map_or(Slot::Null, Slot::Bool));
        let row: Vec<Slot<'_>> = [Slot::Int(0)].into_iter().chain(slots).collect();
        let arena = Bump::new();
        let environment = Environment::new(&row, None, &arena);
        let truth = match expression.eval(&environment) {
            Ok(Slot::Bool(value)) => known(value),
            Ok(_) => Truth::Null,
            Err(_) => Truth::Error,
        };
        prop_assert_eq!(truth, logic.truth(&fields), "{}", logic.text());
    }

    /// A condition on each element is what `||` and `&&` make of the conditions.
    #[test]
    fn elements_are_asked_as_logic_does(elements in prop::collection::vec(prop_oneof![
        Just(Truth::True), Just(Truth::False), Just(Truth::Null), Just(Truth::Error)], 1..5)) {
        let mut schema = Schema::default();
        let list = Type::Int.list(true).expect("of ints");
        schema.fields.push(field("l".into(), list, false));
        // 1 is true, 0 is false and 2 an error.
        let condition = |x: &str| format!("({x} == 2 ? 1 / ({x} - 2) == 1 : {x} == 1)");
        let slots: Vec<Slot<'_>> = elements.iter().map(|element| match element {
            Truth::True => Slot::Int(1),
            Truth::False => Slot::Int(0),
            Truth::Null => Slot::Null,
            Truth::Error => Slot::Int(2),
        }).collect();
        let (row, arena) = ([Slot::List(&slots)], Bump::new());
        let environment = Environment::new(&row, None, &arena);
        let truth = |text: String| {
            let expression = Expression::compile(&text, &Scope { schema: &schema, meta: false }).expect("compiles");
            match expression.eval(&environment) {
                Ok(Slot::Bool(value)) => known(value),
                Ok(_) => Truth::Null,
                Err(_) => Truth::Error,
            }
        };
        for (word, op) in [("exists", " || "), ("all", " && ")] {
            let each: Vec<String> = (0..elements.len()).map(|at| condition(&format!("l[{at}]"))).collect();
            prop_assert_eq!(truth(format!("l.{word}(x, {})", condition("x"))), truth(each.join(op)), "{}", word);
        }
    }

    #[test]
    fn what_is_split_is_joined_again(text in "[a-c,\u{e9}]{0,12}", separator in prop_oneof![Just(""), Just(","), Just("ab")]) {
        let mut schema = Schema::default();
        schema.fields.push(field("t".into(), Type::String, false));
        schema.fields.push(field("by".into(), Type::String, false));
        let (row, arena) = ([Slot::String(&text), Slot::String(separator)], Bump::new());
        let environment = Environment::new(&row, None, &arena);
        let value = |text: &str| {
            Expression::compile(text, &Scope { schema: &schema, meta: false }).expect("compiles").eval(&environment)
        };
        prop_assert_eq!(value("join(split(t, by), by)"), Ok(Slot::String(&text)));
        prop_assert_eq!(value("by != \"\" && split(t, by).exists(x, x.contains(by))"), Ok(Slot::Bool(false)));
    }

    #[test]
    fn arithmetic_is_exact_or_an_error(mut sum in sum()) {
        sum.number(&mut 0);
        let mut numbers = Vec::new();
        sum.fields(&mut numbers);
        let fields = numbers.iter().enumerate().map(|(index, number)| match number {
            Number::Int(_) => field(format!("i{index}"), Type::Int, false),
            Number::Double(_) => field(format!("d{index}"), Type::Double, false),
        });
        let schema = Schema { fields: fields.collect() };
        let row: Vec<Slot<'_>> = numbers.iter().map(|number| match number {
            Number::Int(value) => Slot::Int(*value),
            Number::Double(value) => Slot::Double(*value),
        }).collect();
        let arena = Bump::new();
        let compiled = Expression::compile(&sum.text(), &Scope { schema: &schema, meta: false });
        let expression = match compiled {
            Ok(expression) => expression,
            Err(errors) => {
                // A part of constants has no value, or doubles stand beside a `%`.
                prop_assert!(sum.is_wrong() || sum.value().is_none(), "{}: {:?}", sum.text(), errors);
                return Ok(());
            }
        };
        prop_assert!(!sum.is_wrong(), "{}", sum.text());
        prop_assert_eq!(expression.ty() == Type::Int, sum.is_int());
        let value = match expression.eval(&Environment::new(&row, None, &arena)) {
            Ok(Slot::Int(value)) => Some(Number::Int(value)),
            Ok(Slot::Double(value)) => Some(Number::Double(value)),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        };
        prop_assert_eq!(value, sum.value(), "{}", sum.text());
    }

    #[test]
    fn any_text_compiles_or_has_mistakes_within_it(
        parts in prop::collection::vec(
            prop_oneof![
                "\\PC{0,6}",
                prop::sample::select(vec![
                    "s", "ni", "d ", "t", "\"ü\"", "1", "2.5", "null", "+", "- ", "==", " in ", "[", "]", "(", ")", "?",
                    ":", "&&", "||", "!", ".", "size(", "has(", "matches(", "meta", "headers", "\"", "'", "\\", "//",
                    "\n", "b'", "r\"", "{", "}", ",", "0x", "duration(\"1h\")", "timestamp(",
                ]).prop_map(str::to_owned),
            ],
            0..12,
        ),
    ) {
        let source = parts.concat();
        let length = source.chars().count();
        match Expression::compile(&source, &Scope { schema: &schema(), meta: true }) {
            Ok(expression) => prop_assert_eq!(expression.source(), source),
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(error.start <= error.end && error.end <= length, "{:?} in {:?}", error, source);
                }
            }
        }
    }

    #[test]
    fn a_mistake_is_marked_behind_any_text(text in "[^\"\\\\\r\n\\p{Cc}]{0,20}") {
        let source = format!("s != \"{text}\" && statuz == \"x\"");
        let errors = compile(&source).unwrap_err();
        prop_assert_eq!(errors.len(), 1);
        let marked: String = source.chars().skip(errors[0].start).take(errors[0].end - errors[0].start).collect();
        prop_assert_eq!(marked, "statuz");
    }
}
