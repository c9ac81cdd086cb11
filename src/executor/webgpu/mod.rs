//! Not there yet: no value of these types can be made.

use super::{BackendInfo, Data, View, WeightDtype};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::graph::{ParamSpec, Plan, Rate, Value};
use std::rc::Rc;

/// The executor.
pub enum Webgpu {}
/// Packed weights.
pub enum Weights {}
/// Slots of a plan.
pub enum Instance {}
/// A buffer.
#[derive(Clone)]
pub enum Buffer {}

impl Webgpu {
    pub(super) fn info(&self) -> &BackendInfo {
        match *self {}
    }
    pub(super) async fn allocate(&self, _: &[(ParamSpec, WeightDtype)]) -> Result<Weights> {
        match *self {}
    }
    pub(super) fn upload(&self, _: &Weights, _: &ParamSpec, _: usize, _: WeightDtype, _: &[u8]) -> Result<()> {
        match *self {}
    }
    pub(super) async fn warm(&self, _: &Plan, _: &[(ParamSpec, WeightDtype)]) -> Result<()> {
        match *self {}
    }
    pub(super) async fn prepare(&self, _: Rc<Plan>, _: usize) -> Result<Instance> {
        match *self {}
    }
    pub(super) fn write(&self, _: &Instance, _: &str, _: usize, _: Data<'_>) -> Result<()> {
        match *self {}
    }
    pub(super) fn view(&self, _: &Instance, _: Value, _: usize) -> Result<View> {
        match *self {}
    }
    pub(super) async fn run(
        &self,
        _: &Instance,
        _: &Weights,
        _: Rate,
        _: usize,
        _: usize,
        _: &CancelToken,
    ) -> Result<()> {
        match *self {}
    }
    pub(super) async fn buffer(&self, _: usize) -> Result<Buffer> {
        match *self {}
    }
    pub(super) fn fill(&self, _: &Buffer, _: usize, _: usize, _: &[f32]) -> Result<()> {
        match *self {}
    }
    pub(super) fn combine(&self, _: &View, _: &[(View, f32)], _: Option<f32>) -> Result<()> {
        match *self {}
    }
    pub(super) async fn read(&self, _: &Buffer, _: usize, _: usize) -> Result<Vec<f32>> {
        match *self {}
    }
}
