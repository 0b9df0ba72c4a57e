//! Drill's functions in DataFusion's words: other names, and BIGINT where DataFusion has Int32.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, DateTimeField, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, TimezoneInfo,
    Value,
};

/// A plain call.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args
        .into_iter()
        .map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)))
        .collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

pub(super) fn string(text: impl Into<String>) -> Expr {
    Expr::value(Value::SingleQuotedString(text.into()))
}

pub(super) fn number(value: u64) -> Expr {
    Expr::value(Value::Number(value.to_string(), false))
}

pub(super) fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    }
}

/// The call under DataFusion's name and with Drill's type.
pub(super) fn adapt(mut function: Function) -> Expr {
    let name = lower_name(&mut function);
    if let Some(known) = datafusion_name(&name) {
        function.name = ObjectName::from(vec![Ident::new(known)]);
    }
    match name.as_str() {
        "year" | "month" | "day" | "hour" | "minute" | "second" | "week" | "quarter" => {
            date_part(&name, function)
        }
        "mod" => remainder(function),
        "now" | "current_timestamp" | "localtimestamp" => cast(
            Expr::Function(function),
            DataType::Timestamp(None, TimezoneInfo::None),
        ),
        "current_time" => cast(
            Expr::Function(function),
            DataType::Time(None, TimezoneInfo::None),
        ),
        "length" | "char_length" | "character_length" | "octet_length" | "bit_length"
        | "strpos" | "position" | "locate" | "date_part" => {
            cast(Expr::Function(function), DataType::BigInt(None))
        }
        _ => Expr::Function(function),
    }
}

/// EXTRACT: BIGINT, and DOUBLE with the fraction for seconds.
pub(super) fn extract(field: DateTimeField, expr: Box<Expr>) -> Expr {
    let part = |text: &str, expr| call("date_part", vec![string(text), expr]);
    match field {
        DateTimeField::Second | DateTimeField::Seconds => seconds(part("millisecond", *expr)),
        other => cast(
            part(&other.to_string().to_lowercase(), *expr),
            DataType::BigInt(None),
        ),
    }
}

fn seconds(milliseconds: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(cast(
            milliseconds,
            DataType::Double(datafusion::sql::sqlparser::ast::ExactNumberInfo::None),
        )),
        op: BinaryOperator::Divide,
        right: Box::new(number(1000)),
    }
}

/// The function's name; lower case, because the planner compares it as it stands.
fn lower_name(function: &mut Function) -> String {
    let name = function
        .name
        .to_string()
        .replace(['`', '"'], "")
        .to_lowercase();
    function.name = ObjectName::from(vec![Ident::new(&name)]);
    name
}

fn datafusion_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "ceiling" => "ceil",
        "truncate" => "trunc",
        "rand" => "random",
        "lcase" => "lower",
        "ucase" => "upper",
        "curdate" => "current_date",
        "char" => "chr",
        "locate" | "position" => "strpos",
        "localtimestamp" => "now",
        "any_value" => "first_value",
        "stddev" => "stddev_samp",
        "variance" => "var_samp",
        _ => return None,
    })
}

/// YEAR(x) and its like.
fn date_part(part: &str, function: Function) -> Expr {
    match single_args(&function).as_deref() {
        Some([value]) => cast(
            call("date_part", vec![string(part), value.clone()]),
            DataType::BigInt(None),
        ),
        _ => Expr::Function(function),
    }
}

fn remainder(function: Function) -> Expr {
    match single_args(&function).as_deref() {
        Some([left, right]) => Expr::Nested(Box::new(Expr::BinaryOp {
            left: Box::new(Expr::Nested(Box::new(left.clone()))),
            op: BinaryOperator::Modulo,
            right: Box::new(Expr::Nested(Box::new(right.clone()))),
        })),
        _ => Expr::Function(function),
    }
}

fn single_args(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

/// The call as Drill's messages show it: `nofunc(<NUMERIC>)`.
pub(super) fn signature(function: &Function) -> String {
    let kinds: Vec<&str> = match &function.args {
        FunctionArguments::List(list) => list.args.iter().map(kind).collect(),
        _ => vec![],
    };
    format!("{}({})", function.name, kinds.join(", "))
}

fn kind(arg: &FunctionArg) -> &'static str {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else {
        return "<ANY>";
    };
    match expr {
        Expr::Value(value) => match value.value {
            Value::Number(..) => "<NUMERIC>",
            Value::SingleQuotedString(_) => "<CHARACTER>",
            Value::Boolean(_) => "<BOOLEAN>",
            _ => "<ANY>",
        },
        Expr::Cast {
            data_type: DataType::Int(_) | DataType::Double(_),
            ..
        } => "<NUMERIC>",
        _ => "<ANY>",
    }
}
