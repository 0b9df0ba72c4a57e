//! One pass over a query's tree that turns Drill's SQL into DataFusion's.
//!
//! Names become lower case, so that they match without regard to case (tables offer their columns
//! in lower case too); what the user wrote is kept beside, for the result and for messages. Tables
//! become `drill.schema.object`. Literals and casts get Drill's types.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, CharacterLength, DataType, ExactNumberInfo, Expr, Fetch,
    Function, GroupByExpr, Ident, JoinConstraint, JoinOperator, LimitClause, ObjectName,
    ObjectNamePart, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    SetExpr, Spanned, Subscript, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins,
    Value, VisitMut, VisitorMut, WindowFrameBound, WindowType,
};

use super::calls;
use super::interval::IntervalValue;
use super::limits::{self, within};
use super::names::{OutputName, UniqueNames, item_name, output_names, unnamed};
use super::position::{Positions, Region};
use crate::engine::error::EngineError;

/// The one catalog of the engine.
pub(in crate::engine) const CATALOG: &str = "drill";

/// What the pass asks about the world.
pub(in crate::engine) trait Scope {
    /// Schema and object that a table's name means in this session.
    fn locate(&self, parts: &[&str]) -> Result<(String, String), EngineError>;
    /// Whether a function of this lower-case name exists.
    fn has_function(&self, name: &str) -> bool;
}

/// A query that DataFusion can plan.
#[derive(Debug)]
pub(in crate::engine) struct Rewritten {
    pub(in crate::engine) query: Query,
    /// Names of the outermost SELECT list.
    pub(in crate::engine) output: Option<Vec<OutputName>>,
    /// How the statement spells a lower-case name.
    pub(in crate::engine) spellings: HashMap<String, String>,
    pub(in crate::engine) positions: Positions,
}

/// Rewrites `query` for DataFusion.
pub(in crate::engine) fn rewrite(
    mut query: Query,
    scope: &dyn Scope,
) -> Result<Rewritten, EngineError> {
    let output = output_names(&query);
    let mut pass = Pass {
        scope,
        positions: Positions::default(),
        spellings: HashMap::new(),
        with_tables: HashMap::new(),
        queries: vec![],
    };
    match query.visit(&mut pass) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(Rewritten {
            query,
            output,
            spellings: pass.spellings,
            positions: pass.positions,
        }),
    }
}

struct Pass<'a> {
    scope: &'a dyn Scope,
    positions: Positions,
    spellings: HashMap<String, String>,
    /// Tables of WITH and how many tables each one reads in the end.
    with_tables: HashMap<String, usize>,
    queries: Vec<OpenQuery>,
}

/// A query whose end has not been reached yet.
#[derive(Default)]
struct OpenQuery {
    relations: usize,
    /// WITH tables whose queries are still to come, in order.
    pending: VecDeque<String>,
}

impl VisitorMut for Pass<'_> {
    type Break = EngineError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<EngineError> {
        let mut pending = VecDeque::new();
        for table in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            self.fold_alias(&mut table.alias);
            pending.push_back(table.alias.name.value.clone());
            self.with_tables.insert(table.alias.name.value.clone(), 1);
        }
        self.queries.push(OpenQuery {
            relations: 0,
            pending,
        });
        into_flow(fetch_to_limit(query))
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<EngineError> {
        keep_row_counts(query);
        let closed = self.queries.pop().unwrap_or_default();
        let Some(outer) = self.queries.last_mut() else {
            return into_flow(within(
                closed.relations,
                limits::RELATIONS_MAX,
                "too many tables",
            ));
        };
        match outer.pending.pop_front() {
            Some(name) => {
                self.with_tables.insert(name, closed.relations.max(1));
            }
            None => outer.relations = outer.relations.saturating_add(closed.relations),
        }
        let worst = outer.relations.max(closed.relations);
        into_flow(within(worst, limits::RELATIONS_MAX, "too many tables"))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<EngineError> {
        name_items(select);
        self.fold_select(select);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<EngineError> {
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            exprs.iter_mut().for_each(bare_number);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<EngineError> {
        into_flow(self.locate(relation))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<EngineError> {
        into_flow(self.enter_factor(factor))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<EngineError> {
        match expr {
            Expr::Interval(interval) => {
                let text = match interval.value.as_ref() {
                    Expr::Value(value) => value.value.clone().into_string(),
                    _ => None,
                };
                if let Some(value) = text.and_then(|text| IntervalValue::read(&text, interval)) {
                    let (text, data_type) = value.to_cast();
                    *expr = calls::call(
                        "arrow_cast",
                        vec![calls::string(text), calls::string(data_type)],
                    );
                }
                ControlFlow::Continue(())
            }
            Expr::Cast { data_type, .. } => into_flow(offered(data_type)),
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<EngineError> {
        into_flow(self.leave_expr(expr))
    }
}

impl Pass<'_> {
    fn leave_expr(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        let null = || Expr::value(Value::Null);
        match expr {
            Expr::Identifier(ident) => {
                self.positions
                    .note_column(&ident.value.to_lowercase(), ident.span);
                self.fold(ident);
            }
            Expr::CompoundIdentifier(parts) => self.fold_compound(parts),
            Expr::Value(value) => {
                let region = Region::of(value.span);
                if let Value::Number(text, _) = &value.value
                    && let Some(data_type) = number_type(text, region)?
                {
                    *expr = calls::cast(std::mem::replace(expr, null()), data_type);
                }
            }
            Expr::Cast { .. } => *expr = drill_cast(std::mem::replace(expr, null())),
            Expr::Function(function) => {
                bare_frame(function);
                let function = std::mem::replace(function, empty_function());
                *expr = self.adapt_call(function)?;
            }
            Expr::Extract {
                field, expr: value, ..
            } => {
                let value = std::mem::replace(value, Box::new(null()));
                *expr = calls::extract(field.clone(), value);
            }
            Expr::Position { .. } => {
                *expr = calls::cast(std::mem::replace(expr, null()), DataType::BigInt(None));
            }
            Expr::CompoundFieldAccess { access_chain, .. } => {
                access_chain.iter_mut().for_each(count_from_one);
            }
            _ => {}
        }
        Ok(())
    }

    fn adapt_call(&mut self, function: Function) -> Result<Expr, EngineError> {
        let at = Region::of(function.span()).map(Region::with_bracket);
        let signature = calls::signature(&function);
        let adapted = calls::adapt(function);
        let unknown = match &adapted {
            Expr::Function(call) => !self.scope.has_function(&call.name.to_string()),
            _ => false,
        };
        if unknown {
            Err(EngineError::FunctionNotFound { signature, at })
        } else {
            Ok(adapted)
        }
    }

    /// Table and column of `a.b.c` match without case; what follows names fields inside a value.
    fn fold_compound(&mut self, parts: &mut [Ident]) {
        if let (Some(first), Some(last)) = (parts.first(), parts.last()) {
            let column = parts.get(1).unwrap_or(last);
            self.positions
                .note_column(&column.value.to_lowercase(), first.span.union(&last.span));
        }
        parts.iter_mut().take(2).for_each(|ident| self.fold(ident));
    }

    fn fold(&mut self, ident: &mut Ident) {
        let lower = ident.value.to_lowercase();
        if lower != ident.value {
            self.spellings
                .entry(lower.clone())
                .or_insert_with(|| ident.value.clone());
        }
        ident.value = lower;
    }

    fn fold_alias(&mut self, alias: &mut TableAlias) {
        self.fold(&mut alias.name);
        alias
            .columns
            .iter_mut()
            .for_each(|column| self.fold(&mut column.name));
    }

    fn fold_select(&mut self, select: &mut Select) {
        for item in &mut select.projection {
            match item {
                SelectItem::ExprWithAlias { alias, .. } => self.fold(alias),
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    _,
                ) => {
                    self.fold_name(name);
                }
                _ => {}
            }
        }
        for table in &mut select.from {
            self.fold_using(table);
        }
    }

    fn fold_using(&mut self, table: &mut TableWithJoins) {
        for join in &mut table.joins {
            if let Some(JoinConstraint::Using(columns)) = constraint(&mut join.join_operator) {
                for column in columns {
                    self.fold_name(column);
                }
            }
        }
    }

    fn fold_name(&mut self, name: &mut ObjectName) {
        for part in &mut name.0 {
            if let ObjectNamePart::Identifier(ident) = part {
                self.fold(ident);
            }
        }
    }

    fn enter_factor(&mut self, factor: &mut TableFactor) -> Result<(), EngineError> {
        let alias = match factor {
            TableFactor::Table {
                alias, args: None, ..
            }
            | TableFactor::UNNEST { alias, .. } => alias,
            TableFactor::Derived {
                subquery, alias, ..
            } => {
                name_values(subquery, alias);
                alias
            }
            TableFactor::NestedJoin {
                alias,
                table_with_joins,
            } => {
                self.fold_using(table_with_joins);
                alias
            }
            TableFactor::Table { .. }
            | TableFactor::TableFunction { .. }
            | TableFactor::Function { .. } => {
                return Err(EngineError::Unsupported {
                    what: "A table function".into(),
                    note: "",
                });
            }
            _ => {
                return Err(EngineError::Unsupported {
                    what: "This kind of table".into(),
                    note: "",
                });
            }
        };
        if let Some(alias) = alias {
            self.fold_alias(alias);
        }
        Ok(())
    }

    fn locate(&mut self, relation: &mut ObjectName) -> Result<(), EngineError> {
        let idents: Vec<Ident> = relation
            .0
            .iter()
            .filter_map(|part| part.as_ident().cloned())
            .collect();
        let parts: Vec<&str> = idents.iter().map(|ident| ident.value.as_str()).collect();
        let span = idents
            .iter()
            .map(|ident| ident.span)
            .reduce(|a, b| a.union(&b));
        if let [single] = parts.as_slice()
            && let Some(reads) = self.with_tables.get(&single.to_lowercase()).copied()
        {
            *relation = ObjectName::from(vec![Ident::new(single.to_lowercase())]);
            self.count_relations(reads);
            return Ok(());
        }
        self.count_relations(1);
        let at = span.and_then(Region::of);
        let (schema, object) = self
            .scope
            .locate(&parts)
            .map_err(|error| placed(error, at))?;
        if let Some(span) = span {
            self.positions.note_table(&object, span);
        }
        *relation = ObjectName::from(vec![
            Ident::new(CATALOG),
            Ident::new(schema),
            Ident::new(object),
        ]);
        Ok(())
    }

    fn count_relations(&mut self, reads: usize) {
        if let Some(query) = self.queries.last_mut() {
            query.relations = query.relations.saturating_add(reads);
        }
    }
}

fn placed(error: EngineError, place: Option<Region>) -> EngineError {
    match error {
        EngineError::ObjectNotFound {
            object,
            schema,
            at: None,
        } => EngineError::ObjectNotFound {
            object,
            schema,
            at: place,
        },
        other => other,
    }
}

/// Gives every item of the list a name of its own.
fn name_items(select: &mut Select) {
    let mut unique = UniqueNames::default();
    let mut after_wildcard = false;
    for (index, item) in select.projection.iter_mut().enumerate() {
        let OutputName::Named(name) = item_name(index, item) else {
            after_wildcard |= matches!(item, SelectItem::Wildcard(_));
            continue;
        };
        let plain = matches!(
            item,
            SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        );
        if plain && after_wildcard {
            unique.claim(&name);
        }
        let free = unique.claim(&name);
        if !plain || free != name {
            set_alias(item, &free);
        }
    }
}

fn set_alias(item: &mut SelectItem, name: &str) {
    let placeholder = SelectItem::UnnamedExpr(Expr::value(Value::Null));
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) =
        std::mem::replace(item, placeholder)
    else {
        return;
    };
    *item = SelectItem::ExprWithAlias {
        expr,
        alias: Ident::new(name),
    };
}

/// `(values(1))` has columns `EXPR$0`, ...
fn name_values(subquery: &Query, alias: &mut Option<TableAlias>) {
    let SetExpr::Values(values) = subquery.body.as_ref() else {
        return;
    };
    let width = values.rows.first().map_or(0, |row| row.len());
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new("EXPR$"),
        columns: vec![],
        at: None,
    });
    if alias.columns.is_empty() {
        let column = |index| TableAliasColumnDef {
            name: Ident::new(unnamed(index)),
            data_type: None,
        };
        alias.columns = (0..width).map(column).collect();
    }
}

/// FETCH FIRST n ROWS ONLY is LIMIT n.
fn fetch_to_limit(query: &mut Query) -> Result<(), EngineError> {
    let Some(Fetch {
        with_ties,
        percent,
        quantity,
    }) = query.fetch.take()
    else {
        return Ok(());
    };
    if with_ties || percent {
        return Err(EngineError::Unsupported {
            what: "FETCH WITH TIES or PERCENT".into(),
            note: "",
        });
    }
    let quantity = quantity.unwrap_or_else(|| calls::number(1));
    let offset = match query.limit_clause.take() {
        Some(LimitClause::LimitOffset {
            limit: None,
            offset,
            ..
        }) => offset,
        None => None,
        Some(_) => {
            return Err(EngineError::Invalid {
                reason: "Both LIMIT and FETCH are given".into(),
            });
        }
    };
    query.limit_clause = Some(LimitClause::LimitOffset {
        limit: Some(quantity),
        offset,
        limit_by: vec![],
    });
    Ok(())
}

/// Row counts and ordinals are plain numbers, not values of a type.
fn keep_row_counts(query: &mut Query) {
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => {
            limit.iter_mut().for_each(bare_number);
            if let Some(offset) = offset {
                bare_number(&mut offset.value);
            }
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
            bare_number(offset);
            bare_number(limit);
        }
        None => {}
    }
    if let Some(order) = &mut query.order_by
        && let OrderByKind::Expressions(exprs) = &mut order.kind
    {
        for order in exprs {
            bare_number(&mut order.expr);
        }
    }
}

fn bare_frame(function: &mut Function) {
    let Some(WindowType::WindowSpec(spec)) = &mut function.over else {
        return;
    };
    let Some(frame) = &mut spec.window_frame else {
        return;
    };
    for bound in std::iter::once(&mut frame.start_bound).chain(frame.end_bound.as_mut()) {
        if let WindowFrameBound::Preceding(Some(expr)) | WindowFrameBound::Following(Some(expr)) =
            bound
        {
            bare_number(expr);
        }
    }
}

/// Takes back the type that [`number_type`] gave.
fn bare_number(expr: &mut Expr) {
    if let Expr::Cast {
        expr: inner,
        data_type: DataType::Int(None),
        ..
    } = expr
        && matches!(inner.as_ref(), Expr::Value(value) if matches!(value.value, Value::Number(..)))
    {
        *expr = std::mem::replace(inner, Expr::value(Value::Null));
    }
}

/// Drill's type of a number where DataFusion's differs: INT if it fits, DOUBLE with an exponent.
fn number_type(text: &str, at: Option<Region>) -> Result<Option<DataType>, EngineError> {
    if text.contains(['e', 'E']) {
        return Ok(Some(DataType::Double(ExactNumberInfo::None)));
    }
    let digits = text.replace('.', "");
    if digits.parse::<i64>().is_err() {
        return Err(EngineError::LiteralOutOfRange {
            literal: text.to_owned(),
            at,
        });
    }
    Ok(text.parse::<i32>().is_ok().then_some(DataType::Int(None)))
}

/// Types that Drill refuses to cast to.
fn offered(data_type: &DataType) -> Result<(), EngineError> {
    let name = match data_type {
        DataType::TinyInt(_) => "TINYINT",
        DataType::SmallInt(_) | DataType::Int2(_) => "SMALLINT",
        _ => return Ok(()),
    };
    Err(EngineError::Unsupported {
        what: name.to_owned(),
        note: "See Apache Drill JIRA: DRILL-1959",
    })
}

/// Length of a VARCHAR in a CAST that gives none.
// wire: golden/user/types frame 122
const VARCHAR_LENGTH_DEFAULT: u64 = 65_535;

/// CAST with Drill's rounding and lengths.
fn drill_cast(cast: Expr) -> Expr {
    let Expr::Cast {
        kind: CastKind::Cast | CastKind::DoubleColon,
        expr,
        data_type,
        array: false,
        format: None,
    } = cast
    else {
        return cast;
    };
    let text = DataType::Varchar(None);
    match data_type {
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => {
            calls::call("drill_int", vec![*expr])
        }
        DataType::BigInt(_) | DataType::Int8(_) => calls::call("drill_bigint", vec![*expr]),
        DataType::Varchar(length)
        | DataType::CharVarying(length)
        | DataType::CharacterVarying(length)
        | DataType::Nvarchar(length) => sized(
            "drill_varchar",
            *expr,
            text,
            Some(characters(length).unwrap_or(VARCHAR_LENGTH_DEFAULT)),
        ),
        DataType::Char(length) | DataType::Character(length) => sized(
            "drill_char",
            *expr,
            text,
            Some(characters(length).unwrap_or(1)),
        ),
        DataType::Varbinary(length) => {
            let length = match length {
                Some(datafusion::sql::sqlparser::ast::BinaryLength::IntegerLength { length }) => {
                    Some(length)
                }
                _ => None,
            };
            sized("drill_varbinary", *expr, DataType::Bytea, length)
        }
        DataType::Binary(length) => sized("drill_varbinary", *expr, DataType::Bytea, length),
        other => calls::cast(*expr, other),
    }
}

fn sized(function: &str, expr: Expr, data_type: DataType, length: Option<u64>) -> Expr {
    let is_text =
        matches!(&expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)));
    let keep = is_text && data_type == DataType::Varchar(None);
    let value = if keep {
        expr
    } else {
        calls::cast(expr, data_type)
    };
    match length {
        Some(length) => calls::call(function, vec![value, calls::number(length)]),
        None => value,
    }
}

fn characters(length: Option<CharacterLength>) -> Option<u64> {
    match length {
        Some(CharacterLength::IntegerLength { length, .. }) => Some(length),
        _ => None,
    }
}

/// Drill counts array elements from 0, DataFusion from 1.
fn count_from_one(access: &mut AccessExpr) {
    if let AccessExpr::Subscript(Subscript::Index { index }) = access
        && !matches!(index, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
    {
        let zero_based = std::mem::replace(index, Expr::value(Value::Null));
        *index = Expr::BinaryOp {
            left: Box::new(zero_based),
            op: BinaryOperator::Plus,
            right: Box::new(calls::number(1)),
        };
    }
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

fn empty_function() -> Function {
    let Expr::Function(function) = calls::call("", vec![]) else {
        unreachable!("call makes a function")
    };
    function
}

fn into_flow(result: Result<(), EngineError>) -> ControlFlow<EngineError> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}
