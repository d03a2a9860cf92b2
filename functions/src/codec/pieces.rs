//! Deep expressions and plans in pieces: protobuf reads a hundred levels of messages and no more, which is a join of fifty tables or fifty CASEs in each other.
//!
//! Owns where trees are cut, what stands in a tree in place of a piece, and the envelope: the pieces, each after those it refers to, then the tree.
//! Must not know how one piece is encoded. Called by the codec around it.
//!
//! Invariant. What is put together again is what was cut, up to aliases that keep the names of columns.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion, TreeNodeRewriter};
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Result, internal_err};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, UserDefinedLogicalNodeCore,
};

/// Levels of an expression in one piece. Each is up to three messages.
const EXPRESSION_LEVELS: usize = 12;
/// Levels of a plan in one piece. Each is two messages.
const PLAN_LEVELS: usize = 15;
/// What the names of placeholders for pieces begin with; no parameter's does.
const STAND_IN: &str = "\u{1}piece";

/// What has been cut off. It is encoded at the end: encoding recurses deeply itself, and must not start where a tree is just being walked through.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<Cut>);

#[derive(Debug)]
enum Cut {
    Expression(Expr),
    Plan(Arc<LogicalPlan>),
}

/// Encodes one piece.
pub(super) type Encode<'a, T> = &'a dyn Fn(&T) -> Result<Vec<u8>>;

impl Pieces {
    fn add(&mut self, cut: Cut) -> usize {
        self.0.push(cut);
        self.0.len() - 1
    }

    /// The envelope around the tree that is left.
    pub(super) fn close(
        self,
        rest: &[u8],
        encode_expr: Encode<'_, Expr>,
        encode_plan: Encode<'_, LogicalPlan>,
    ) -> Result<Vec<u8>> {
        let length = |bytes: &[u8]| {
            u32::try_from(bytes.len())
                .map(u32::to_le_bytes)
                .map_err(|_| DataFusionError::Plan("a plan of 4 GiB cannot travel".to_owned()))
        };
        let mut all = Vec::with_capacity(rest.len() + 1);
        for cut in &self.0 {
            let (kind, bytes) = match cut {
                Cut::Expression(expr) => (1, encode_expr(expr)?),
                Cut::Plan(plan) => (2, encode_plan(plan)?),
            };
            all.push(kind);
            all.extend(length(&bytes)?);
            all.extend(bytes);
        }
        all.push(0);
        all.extend(rest);
        Ok(all)
    }

    /// Cuts what is too deep off an expression. `schema`: what its columns are of, if that matters to whoever decodes it.
    pub(super) fn cut_expr(
        &mut self,
        expr: Expr,
        schema: Option<&DFSchema>,
    ) -> Result<Transformed<Expr>> {
        expr.rewrite(&mut ExprCutter {
            levels: Vec::new(),
            schema,
            pieces: self,
        })
    }

    /// Cuts what is too deep off the expressions of a plan, and then off the plan.
    pub(super) fn cut_plan(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let plan = plan
            .transform_up_with_subqueries(|node| self.cut_expressions(node))?
            .data;
        let rewritten = plan.rewrite(&mut PlanCutter {
            levels: Vec::new(),
            pieces: self,
        })?;
        Ok(rewritten.data)
    }

    fn cut_expressions(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let mut deep = false;
        node.apply_expressions(|expr| {
            deep |= is_deep(expr)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !deep {
            return Ok(Transformed::no(node));
        }
        let schema = match node.inputs().as_slice() {
            [] => node.schema().as_ref().clone(),
            [first, others @ ..] => others
                .iter()
                .try_fold(first.schema().as_ref().clone(), |schema, other| {
                    schema.join(other.schema())
                })?,
        };
        let names = NamePreserver::new(&node);
        let sorts = matches!(node, LogicalPlan::Sort(_));
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let cut = self.cut_expr(expr, Some(&schema))?;
            // A sort key gives no name to anything.
            Ok(if sorts || !cut.transformed {
                cut
            } else {
                cut.update_data(|expr| name.restore(expr))
            })
        })
    }
}

/// Whether an expression has more levels than one piece may have.
fn is_deep(expr: &Expr) -> Result<bool> {
    let mut level = vec![expr];
    for _ in 0..EXPRESSION_LEVELS {
        let mut next = Vec::new();
        for expr in level {
            expr.apply_children(|child| {
                next.push(child);
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        level = next;
    }
    Ok(!level.is_empty())
}

struct ExprCutter<'a> {
    /// Levels below each expression that is being visited.
    levels: Vec<usize>,
    schema: Option<&'a DFSchema>,
    pieces: &'a mut Pieces,
}

/// Notes that a node with so many levels is done, and says what that makes them.
fn rise(levels: &mut Vec<usize>, cut: impl FnOnce(usize) -> Result<bool>) -> Result<bool> {
    let own = levels.pop().unwrap_or(0) + 1;
    // The tree itself is what is left.
    let is_cut = !levels.is_empty() && cut(own)?;
    if let Some(above) = levels.last_mut() {
        *above = (*above).max(if is_cut { 1 } else { own });
    }
    Ok(is_cut)
}

/// Whether an expression means the same wherever it stands.
fn can_be_piece(expr: &Expr) -> Result<bool> {
    let own = matches!(
        expr,
        Expr::BinaryExpr(_)
            | Expr::Case(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::ScalarFunction(_)
            | Expr::InList(_)
            | Expr::Like(_)
            | Expr::SimilarTo(_)
            | Expr::Between(_)
            | Expr::Negative(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
    );
    Ok(own
        && !expr.exists(|part| {
            Ok(matches!(
                part,
                Expr::AggregateFunction(_)
                    | Expr::WindowFunction(_)
                    | Expr::ScalarSubquery(_)
                    | Expr::InSubquery(_)
                    | Expr::Exists(_)
                    | Expr::SetComparison(_)
                    | Expr::OuterReferenceColumn(..)
                    | Expr::Unnest(_)
                    | Expr::Lambda(_)
                    | Expr::LambdaVariable(_)
            ))
        })?)
}

impl TreeNodeRewriter for ExprCutter<'_> {
    type Node = Expr;

    fn f_down(&mut self, node: Expr) -> Result<Transformed<Expr>> {
        self.levels.push(0);
        Ok(Transformed::no(node))
    }

    fn f_up(&mut self, node: Expr) -> Result<Transformed<Expr>> {
        let is_cut = rise(&mut self.levels, |own| {
            Ok(own >= EXPRESSION_LEVELS && can_be_piece(&node)?)
        })?;
        if !is_cut {
            return Ok(Transformed::no(node));
        }
        let field = match self.schema {
            Some(schema) => Some(node.to_field(schema)?.1),
            None => None,
        };
        let index = self.pieces.add(Cut::Expression(node));
        Ok(Transformed::yes(Expr::Placeholder(
            Placeholder::new_with_field(format!("{STAND_IN}{index}"), field),
        )))
    }
}

struct PlanCutter<'a> {
    /// Levels below each node that is being visited.
    levels: Vec<usize>,
    pieces: &'a mut Pieces,
}

impl TreeNodeRewriter for PlanCutter<'_> {
    type Node = LogicalPlan;

    fn f_down(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        self.levels.push(0);
        Ok(Transformed::no(node))
    }

    fn f_up(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let whole = matches!(node, LogicalPlan::TableScan(_) | LogicalPlan::Subquery(_));
        if !rise(&mut self.levels, |own| Ok(own >= PLAN_LEVELS && !whole))? {
            return Ok(Transformed::no(node));
        }
        let plan = Arc::new(node);
        let index = self.pieces.add(Cut::Plan(Arc::clone(&plan)));
        Ok(Transformed::yes(LogicalPlan::Extension(Extension {
            node: Arc::new(Piece { index, plan }),
        })))
    }
}

/// What stands in a plan for a piece of it.
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) index: usize,
    pub(super) plan: Arc<LogicalPlan>,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Piece").field(&self.index).finish()
    }
}

impl PartialEq for Piece {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for Piece {}

impl PartialOrd for Piece {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.index.partial_cmp(&other.index)
    }
}

impl Hash for Piece {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for Piece {
    fn name(&self) -> &str {
        "Piece"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        self.plan.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece: {}", self.index)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, _inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(self.clone())
    }
}

/// Pieces that were read, in their order.
#[derive(Debug, Default)]
pub(super) struct Read(Vec<Whole>);

#[derive(Debug)]
enum Whole {
    Expression(Expr),
    Plan(Arc<LogicalPlan>),
}

/// The plans among the pieces, by their index.
#[derive(Debug, Default)]
pub(super) struct StandIns(Vec<Option<Arc<LogicalPlan>>>);

impl StandIns {
    /// What stands for the piece with an index.
    pub(super) fn get(&self, index: usize) -> Result<Piece> {
        match self.0.get(index) {
            Some(Some(plan)) => Ok(Piece {
                index,
                plan: Arc::clone(plan),
            }),
            _ => internal_err!("there is no piece {index} of a plan"),
        }
    }
}

impl Read {
    /// Reads the pieces of an envelope; gives them, and the bytes of the tree that is left.
    pub(super) fn open<'b>(
        bytes: &'b [u8],
        decode_expr: &dyn Fn(&[u8]) -> Result<Expr>,
        decode_plan: &dyn Fn(&[u8], &Self) -> Result<LogicalPlan>,
    ) -> Result<(Self, &'b [u8])> {
        let mut read = Self::default();
        let mut rest = bytes;
        loop {
            let Some((kind, behind)) = rest.split_first() else {
                return internal_err!("a plan without an end");
            };
            let kind = match kind {
                0 => return Ok((read, behind)),
                1 | 2 => *kind,
                other => return internal_err!("a piece of the unknown kind {other}"),
            };
            let cut = behind
                .split_first_chunk::<4>()
                .and_then(|(length, behind)| {
                    behind.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
                });
            let Some((piece, behind)) = cut else {
                return internal_err!("a piece that is cut short");
            };
            rest = behind;
            let whole = if kind == 1 {
                Whole::Expression(read.complete_expr(decode_expr(piece)?)?)
            } else {
                let plan = decode_plan(piece, &read)?;
                Whole::Plan(Arc::new(read.complete_plan(plan)?))
            };
            read.0.push(whole);
        }
    }

    /// What stands for those pieces that are plans.
    pub(super) fn stand_ins(&self) -> StandIns {
        let plans = self.0.iter().map(|whole| match whole {
            Whole::Plan(plan) => Some(Arc::clone(plan)),
            Whole::Expression(_) => None,
        });
        StandIns(plans.collect())
    }

    /// Puts the pieces of an expression in their places.
    pub(super) fn complete_expr(&self, expr: Expr) -> Result<Expr> {
        Ok(expr.transform_down(|part| self.complete(part))?.data)
    }

    fn complete(&self, part: Expr) -> Result<Transformed<Expr>> {
        let index = match &part {
            Expr::Placeholder(placeholder) => placeholder.id.strip_prefix(STAND_IN),
            _ => None,
        };
        let Some(index) = index else {
            return Ok(Transformed::no(part));
        };
        match index
            .parse()
            .ok()
            .and_then(|index: usize| self.0.get(index))
        {
            // It is complete already.
            Some(Whole::Expression(expr)) => Ok(Transformed::new(
                expr.clone(),
                true,
                TreeNodeRecursion::Jump,
            )),
            _ => internal_err!("there is no piece {index} of an expression"),
        }
    }

    /// Puts the pieces of a plan in their places.
    pub(super) fn complete_plan(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        if self.0.is_empty() {
            return Ok(plan);
        }
        let completed = plan.transform_up_with_subqueries(|node| {
            if let LogicalPlan::Extension(extension) = &node
                && let Some(piece) = extension.node.as_any().downcast_ref::<Piece>()
            {
                return Ok(Transformed::yes(piece.plan.as_ref().clone()));
            }
            // What stood in for a piece could be NULL, whatever the piece can be.
            node.map_expressions(|expr| expr.transform_down(|part| self.complete(part)))?
                .map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(completed.data)
    }
}
