//! The rules that plans go through.
//!
//! Owns the choice: only rules that keep the meaning whatever the data is, none that bakes in statistics or the clock (ENGINE.md 7.2).
//! Called by [`crate::plan`] for plans that run once, and by [`crate::lower`] for plans to be maintained.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Case, InSubquery};
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, ExprSchemable, InvariantLevel, Limit, LogicalPlan,
    LogicalPlanBuilder, Operator, Subquery, lit,
};
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_group_by_constant::EliminateGroupByConstant;
use datafusion::optimizer::eliminate_limit::EliminateLimit;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::push_down_limit::PushDownLimit;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{AnalyzerRule, Optimizer, OptimizerConfig, OptimizerRule};
use flowstone_functions::execution::{still_wanted, while_wanted};
use flowstone_functions::null_safe::{ExtractKeys, FlattenJoins};

use crate::error::Error;

/// Passes over the rule list.
const PASSES_MAX: usize = 4;

fn config() -> ConfigOptions {
    flowstone_functions::session_config()
        .options()
        .as_ref()
        .clone()
}

/// Takes the padding off what is text, resolves GROUPING, coerces types, writes comparisons with ANY and ALL of a subquery as EXISTS, and says which
/// subqueries can be NULL.
pub(crate) fn analyse(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.check_invariants(InvariantLevel::Always)?;
    let options = config();
    still_wanted()?;
    let plan = super::comparisons::settle(plan)?;
    still_wanted()?;
    let plan = super::padding::take_off(plan)?;
    let plan = ResolveGroupingFunction::new().analyze(plan, &options)?;
    still_wanted()?;
    let plan = TypeCoercion::new().analyze(plan, &options)?;
    still_wanted()?;
    let rules = Config::new();
    let plan = RewriteSetComparison::new().rewrite(plan, &rules)?.data;
    still_wanted()?;
    super::nullability::of_subqueries(plan)
}

/// Checks that a plan can be executed.
pub(crate) fn check(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.check_invariants(InvariantLevel::Executable)?;
    Ok(plan)
}

type Rules = Vec<Arc<dyn OptimizerRule + Send + Sync>>;

/// What rules may ask. There is no clock; names are numbered anew for each plan, so that planning is deterministic.
struct Config {
    options: Arc<ConfigOptions>,
    aliases: Arc<AliasGenerator>,
    functions: SessionState,
}

impl OptimizerConfig for Config {
    fn query_execution_start_time(&self) -> Option<DateTime<Utc>> {
        None
    }

    fn alias_generator(&self) -> &Arc<AliasGenerator> {
        &self.aliases
    }

    fn options(&self) -> Arc<ConfigOptions> {
        Arc::clone(&self.options)
    }

    fn function_registry(&self) -> Option<&dyn FunctionRegistry> {
        Some(&self.functions)
    }
}

impl Config {
    fn new() -> Self {
        let mut options = config();
        options.optimizer.skip_failed_rules = false;
        options.optimizer.max_passes = PASSES_MAX;
        Self {
            options: Arc::new(options),
            aliases: Arc::new(AliasGenerator::new()),
            functions: flowstone_functions::session_state(),
        }
    }
}

fn run(rules: Rules, plan: LogicalPlan) -> Result<LogicalPlan> {
    Optimizer::with_rules(while_wanted(rules)).optimize(plan, &Config::new(), |_, _| {})
}

/// Optimises a plan that runs once.
pub(crate) fn optimize(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rules: Rules = vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(ExtractKeys),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(FlattenJoins),
        Arc::new(EliminateLimit::new()),
        Arc::new(PropagateEmptyRelation::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownLimit::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(EliminateGroupByConstant::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    run(rules, plan)
}

/// Rows of a limit that limits nothing: it keeps filters from being pushed below a DISTINCT ON, where they would change which row is the first.
pub(crate) const BARRIER_ROWS: i64 = i64::MAX;

/// Puts a barrier above each DISTINCT ON. DataFusion's push-down expects that it has become an aggregate by then.
fn guard_distinct_on(plan: LogicalPlan) -> Result<LogicalPlan> {
    let guarded = plan.transform_up_with_subqueries(|node| {
        if !matches!(node, LogicalPlan::Distinct(Distinct::On(_))) {
            return Ok(Transformed::no(node));
        }
        Ok(Transformed::yes(LogicalPlan::Limit(Limit {
            skip: None,
            fetch: Some(Box::new(lit(BARRIER_ROWS))),
            input: Arc::new(node),
        })))
    })?;
    Ok(guarded.data)
}

/// Prepares a plan for lowering: unnests subqueries, pushes filters down, drops columns nobody reads. DISTINCT and aggregates keep their shape.
pub(crate) fn prepare_for_maintenance(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = guard_distinct_on(plan)?;
    let rules: Rules = vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(ExtractKeys),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(FlattenJoins),
        Arc::new(EliminateLimit::new()),
        Arc::new(PropagateEmptyRelation::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(EliminateGroupByConstant::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    run(rules, plan)
}

/// What becomes of a boolean expression whose value may be NULL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NullMeaning {
    /// A conjunct of WHERE: DataFusion's joins take NULLs into account.
    Conjunct,
    /// NULL and false have the same effect.
    False,
    /// NULL differs from false.
    Unknown,
}

/// Spells out `x [NOT] IN (SELECT …)` where the answer hinges on NULL, in WHERE and in the SELECT list: whether a value is equal, whether there are
/// any, and whether one is NULL are counted. DataFusion's mark join would take NULL for false. Subqueries that are correlated themselves stay.
pub(crate) fn spell_out_membership(plan: LogicalPlan) -> Result<LogicalPlan> {
    let spelled = plan.transform_up_with_subqueries(|node| {
        if !matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Projection(_)) {
            return Ok(Transformed::no(node));
        }
        let Some(schema) = node
            .inputs()
            .first()
            .map(|input| Arc::clone(input.schema()))
        else {
            return Ok(Transformed::no(node));
        };
        let nullable = |expr: &Expr| expr.nullable(schema.as_ref()).unwrap_or(true);
        let in_where = matches!(node, LogicalPlan::Filter(_));
        let spelled = node.map_expressions(|expr| {
            if !in_where {
                return spell_out(expr, NullMeaning::Unknown, &nullable, &schema);
            }
            let mut changed = false;
            let mut conjuncts = Vec::new();
            for conjunct in split_conjunction_owned(expr) {
                let conjunct = spell_out(conjunct, NullMeaning::Conjunct, &nullable, &schema)?;
                changed |= conjunct.transformed;
                conjuncts.push(conjunct.data);
            }
            let whole = conjunction(conjuncts).unwrap_or_else(|| lit(true));
            Ok(Transformed::new_transformed(whole, changed))
        })?;
        spelled.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(spelled.data)
}

fn spell_out(
    expr: Expr,
    meaning: NullMeaning,
    nullable: &dyn Fn(&Expr) -> bool,
    schema: &DFSchema,
) -> Result<Transformed<Expr>> {
    match expr {
        Expr::InSubquery(membership) => {
            let hinges = hinges_on_null(&Expr::InSubquery(membership.clone()), meaning, nullable);
            if hinges && membership.subquery.outer_ref_columns.is_empty() {
                counted_membership(membership, schema).map(Transformed::yes)
            } else {
                Ok(Transformed::no(Expr::InSubquery(membership)))
            }
        }
        Expr::Not(inner)
            if meaning == NullMeaning::Conjunct && matches!(*inner, Expr::InSubquery(_)) =>
        {
            Ok(Transformed::no(Expr::Not(inner)))
        }
        Expr::BinaryExpr(binary)
            if matches!(binary.op, Operator::And | Operator::Or)
                && meaning != NullMeaning::Unknown =>
        {
            let left = spell_out(*binary.left, NullMeaning::False, nullable, schema)?;
            let right = spell_out(*binary.right, NullMeaning::False, nullable, schema)?;
            let changed = left.transformed || right.transformed;
            let both = BinaryExpr::new(Box::new(left.data), binary.op, Box::new(right.data));
            Ok(Transformed::new_transformed(
                Expr::BinaryExpr(both),
                changed,
            ))
        }
        other => {
            other.map_children(|child| spell_out(child, NullMeaning::Unknown, nullable, schema))
        }
    }
}

/// `x IN (SELECT …)` by counting.
fn counted_membership(membership: InSubquery, schema: &DFSchema) -> Result<Expr> {
    let InSubquery {
        expr,
        subquery,
        negated,
    } = membership;
    let values = subquery.subquery;
    let value = values
        .schema()
        .columns()
        .into_iter()
        .next()
        .map(Expr::Column)
        .ok_or_else(|| DataFusionError::Plan("subquery must return a column".to_owned()))?;
    let any_row = |condition: Option<Expr>, outer: Vec<Expr>| {
        let mut rows = LogicalPlanBuilder::from(values.as_ref().clone());
        if let Some(condition) = condition {
            rows = rows.filter(condition)?;
        }
        let counted = rows
            .aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64))])?
            .build()?;
        let counted = Expr::ScalarSubquery(Subquery {
            subquery: Arc::new(counted),
            outer_ref_columns: outer,
            spans: subquery.spans.clone(),
        });
        Ok::<Expr, DataFusionError>(counted.gt(lit(0_i64)))
    };
    let mut outer = Vec::new();
    let from_outside = expr
        .as_ref()
        .clone()
        .transform(|part| match part {
            Expr::Column(column) => {
                let (_, field) = schema.qualified_field_from_column(&column)?;
                let reference = Expr::OuterReferenceColumn(Arc::clone(field), column);
                if !outer.contains(&reference) {
                    outer.push(reference.clone());
                }
                Ok(Transformed::yes(reference))
            }
            other => Ok(Transformed::no(other)),
        })?
        .data;
    let equal = any_row(Some(value.clone().eq(from_outside)), outer)?;
    let any = any_row(None, Vec::new())?;
    let any_null = any_row(Some(value.is_null()), Vec::new())?;
    // With a subject: without one DataFusion makes ANDs and ORs of it.
    let unknown = any_null.or(expr.is_null().and(any));
    let arms = vec![
        (Box::new(equal), Box::new(lit(!negated))),
        (Box::new(unknown), Box::new(lit(ScalarValue::Boolean(None)))),
    ];
    let subject = Some(Box::new(lit(true)));
    Ok(Expr::Case(Case::new(
        subject,
        arms,
        Some(Box::new(lit(negated))),
    )))
}

/// Refuses `x [NOT] IN (SELECT …)` where the answer hinges on NULL and DataFusion's mark join would take NULL for false: a wrong answer.
pub(crate) fn refuse_membership_with_nulls(plan: &LogicalPlan) -> std::result::Result<(), Error> {
    let mut wrong = false;
    plan.apply_with_subqueries(|node| {
        let schema = node.inputs().first().map(|input| input.schema());
        let nullable = |expr: &Expr| {
            schema.is_none_or(|schema| expr.nullable(schema.as_ref()).unwrap_or(true))
        };
        if let LogicalPlan::Filter(filter) = node {
            for conjunct in split_conjunction(&filter.predicate) {
                wrong |= hinges_on_null(conjunct, NullMeaning::Conjunct, &nullable);
            }
        } else {
            node.apply_expressions(|expr| {
                wrong |= hinges_on_null(expr, NullMeaning::Unknown, &nullable);
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|error| super::errors::from_datafusion(&error, ""))?;
    if wrong {
        return Err(Error::unsupported(
            "IN (subquery) over values that may be NULL is not supported here",
        )
        .with_hint("Use EXISTS or NOT EXISTS, or rewrite it as a join."));
    }
    Ok(())
}

fn hinges_on_null(expr: &Expr, meaning: NullMeaning, nullable: &dyn Fn(&Expr) -> bool) -> bool {
    match expr {
        Expr::InSubquery(membership) => {
            let values = membership.subquery.subquery.schema();
            let two_valued = !nullable(&membership.expr)
                && values
                    .fields()
                    .first()
                    .is_some_and(|field| !field.is_nullable());
            let fits = match meaning {
                NullMeaning::Conjunct => true,
                NullMeaning::False => !membership.negated,
                NullMeaning::Unknown => false,
            };
            !(two_valued || fits)
        }
        Expr::Not(inner)
            if meaning == NullMeaning::Conjunct && matches!(**inner, Expr::InSubquery(_)) =>
        {
            false
        }
        Expr::BinaryExpr(binary)
            if matches!(binary.op, Operator::And | Operator::Or)
                && meaning != NullMeaning::Unknown =>
        {
            [&binary.left, &binary.right]
                .into_iter()
                .any(|side| hinges_on_null(side, NullMeaning::False, nullable))
        }
        _ => {
            let mut found = false;
            let visited = expr.apply_children(|child| {
                found |= hinges_on_null(child, NullMeaning::Unknown, nullable);
                Ok(TreeNodeRecursion::Continue)
            });
            found || visited.is_err()
        }
    }
}

/// Refuses a plan in which a subquery is left.
pub(crate) fn refuse_subqueries(plan: &LogicalPlan) -> std::result::Result<(), Error> {
    let mut left = false;
    plan.apply(|node| {
        left |= matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                left |= matches!(
                    part,
                    Expr::ScalarSubquery(_)
                        | Expr::InSubquery(_)
                        | Expr::Exists(_)
                        | Expr::SetComparison(_)
                        | Expr::OuterReferenceColumn(..)
                );
                Ok(if left {
                    TreeNodeRecursion::Stop
                } else {
                    TreeNodeRecursion::Continue
                })
            })
        })
    })
    .map_err(|error| super::errors::from_datafusion(&error, ""))?;
    if left {
        return Err(
            Error::unsupported("this form of correlated subquery is not supported")
                .with_hint("Rewrite it as a join, or correlate by equality only."),
        );
    }
    Ok(())
}
