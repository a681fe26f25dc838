//! A driver whose power is lost at a chosen change: before it takes effect, or after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bulkhead_api::mig::Geometry;
use bulkhead_supervisor::gpu::driver::{Change, Changed, Driver};
use bulkhead_supervisor::gpu::nvml::GpuError;
use bulkhead_supervisor::gpu::nvml::model::{Client, GpuInstance, Identity};

#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) inner: Arc<dyn Driver>,
    /// Points left: two a change, one before it and one after.
    pub(crate) left: AtomicU32,
}

impl Cut {
    pub(crate) fn after(inner: Arc<dyn Driver>, points: u32) -> Arc<Self> {
        Arc::new(Self { inner, left: AtomicU32::new(points) })
    }

    /// Whether the power is still on at the next point.
    fn point(&self) -> Result<(), GpuError> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Err(GpuError::Thread("power lost".to_owned()));
        }
        self.left.store(left - 1, Ordering::SeqCst);
        Ok(())
    }

    /// Without power nothing answers.
    fn power(&self) -> Result<(), GpuError> {
        match self.left.load(Ordering::SeqCst) {
            0 => Err(GpuError::Thread("power lost".to_owned())),
            _ => Ok(()),
        }
    }
}

impl Driver for Cut {
    fn gpus(&self) -> Result<Vec<String>, GpuError> {
        self.power()?;
        self.inner.gpus()
    }

    fn identity(&self, gpu: &str) -> Result<Identity, GpuError> {
        self.power()?;
        self.inner.identity(gpu)
    }

    fn geometry(&self, gpu: &str) -> Result<Arc<Geometry>, GpuError> {
        self.power()?;
        self.inner.geometry(gpu)
    }

    fn instances(&self, gpu: &str) -> Result<Vec<GpuInstance>, GpuError> {
        self.power()?;
        self.inner.instances(gpu)
    }

    fn clients(&self, gpu: &str) -> Result<Vec<Client>, GpuError> {
        self.power()?;
        self.inner.clients(gpu)
    }

    fn change(&self, gpu: &str, change: Change) -> Result<Changed, GpuError> {
        self.point()?;
        let done = self.inner.change(gpu, change)?;
        self.point()?;
        Ok(done)
    }
}
