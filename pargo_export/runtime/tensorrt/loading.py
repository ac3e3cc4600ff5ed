"""From the record of an engine to the deserialized one. Nothing is deserialized before everything was compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pargo_export.bundle import Bundle, Engine, EngineDevice, Variant, sha256_bytes
from pargo_export.errors import BackendError, BundleError, IntegrityError
from pargo_export.runtime.tensorrt.rtx_cache import RtxCache, cache_path
from pargo_export.signature import TensorSpec
from pargo_export.trt import TensorRT
from pargo_export.trt.api import sizes_of
from pargo_export.trt.plugins import LoadedPlugins, load_requirements
from pargo_export.trt.preflight import find_refusal

if TYPE_CHECKING:
    from tensorrt import ICudaEngine, Runtime

__all__ = ["LoadedEngine"]

_DTYPES = {"FLOAT": "float32", "UINT8": "uint8"}


class LoadedEngine:
    """An engine in the memory of the GPU, whose context must be current when it is loaded and closed.

    The order: the record against this machine; the file against its hash, always, because an engine is code; plugins,
    whose libraries are hashed too; then TensorRT reads the very bytes that were hashed. Code of the host inside an engine
    stays forbidden (`engine_host_code_allowed`).

    Args:
        bundle: The bundle.
        engine: The engine.
        device: This machine.
        tensorrt: The TensorRT to run it.
        accept_failed: The user named the engine: failed evidence is no obstacle.

    Attributes:
        record: The engine in the manifest.
        tensorrt: The TensorRT.
        cache: Compiled kernels of TensorRT for RTX; `None` for TensorRT, whose engines are compiled.

    Raises:
        BackendError: It is not for this machine, or TensorRT refuses it.
        BundleError: It is not what its record says.
        IntegrityError: Its file, or the library of a plugin, is not the one that the manifest describes.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        device: EngineDevice,
        tensorrt: TensorRT,
        accept_failed: bool = False,
    ) -> None:
        refusal = find_refusal(
            engine,
            bundle.manifest,
            device=device,
            tensorrt=tensorrt,
            bundle=bundle.path,
            accept_failed=accept_failed,
        )
        if refusal:
            raise BackendError(refusal)
        serialized = read_engine(bundle, engine)
        self.record, self.tensorrt = engine, tensorrt
        self.cache: RtxCache | None = None
        self._trt_engine: ICudaEngine | None = None
        self._trt_runtime: Runtime | None = None
        self._plugins: LoadedPlugins | None = load_requirements(tensorrt, engine.plugins, bundle)
        try:
            self._trt_engine = self._deserialize(serialized, bundle)
            _check_tensors(self._trt_engine, engine, bundle.manifest.variants[engine.variant])
            if hasattr(tensorrt.module, "CudaGraphStrategy"):  # kernels are compiled here: TensorRT for RTX
                trt_config: Any = self._trt_engine.create_runtime_config()  # the stubs have no cache
                path = cache_path(engine, device, tensorrt)
                self.cache = RtxCache(trt_config.create_runtime_cache(), path)
        except BaseException:
            self.close()  # now, while the context is current
            raise

    @property
    def trt_engine(self) -> ICudaEngine:
        """TensorRT's object.

        Raises:
            BackendError: It was freed.
        """
        if self._trt_engine is None:
            raise BackendError(f"engine {self.record.name} is closed; open the bundle again")
        return self._trt_engine

    def _deserialize(self, serialized: bytes, bundle: Bundle) -> ICudaEngine:
        tensorrt = self.tensorrt
        trt = tensorrt.module
        with tensorrt.log.watch() as log:
            self._trt_runtime = trt.Runtime(tensorrt.logger)
            self._trt_runtime.engine_host_code_allowed = False
            trt_engine = cast("ICudaEngine | None", self._trt_runtime.deserialize_cuda_engine(serialized))
            if trt_engine is None:
                reason = log.reason("it does not say why")
                raise BackendError(
                    f"{tensorrt.title} cannot load engine {self.record.name}: {reason}; if memory ran out, close what "
                    f"else uses the GPU, else build it again with `pargo-export trt {bundle.path}`"
                )
            return trt_engine

    def close(self) -> None:
        """Let TensorRT free the engine; every execution context must be gone."""
        self.cache = None
        self._trt_engine = None
        self._trt_runtime = None
        self._plugins = None


def read_engine(bundle: Bundle, engine: Engine) -> bytes:
    """Return the serialized engine, after comparing its hash with the record: these bytes, not the file, which may change.

    Raises:
        IntegrityError: It differs, or the file is missing.
    """
    try:
        serialized = bundle.file(engine.file).read_bytes()
    except OSError:
        bundle.check(engine.file)  # says what is wrong
        raise
    if sha256_bytes(serialized) != engine.engine_sha256:
        bundle.check(engine.file)
        raise IntegrityError(  # written while it was read, or a manifest that was put together by hand
            f"bundle {bundle.path}: {engine.file} is not what engine {engine.name} was built as; open the bundle again, or "
            f"build it again with `pargo-export trt {bundle.path}`"
        )
    return serialized


def _check_tensors(trt_engine: ICudaEngine, engine: Engine, variant: Variant) -> None:
    """Compare inputs, outputs and profiles with the record.

    Raises:
        BundleError: They differ.
    """
    signature = variant.signature
    names = [trt_engine.get_tensor_name(index) for index in range(trt_engine.num_io_tensors)]
    found = {name: _describe_tensor(trt_engine, name) for name in names}
    expected = {spec.name: _describe("INPUT", spec) for spec in signature.inputs}
    expected |= {spec.name: _describe("OUTPUT", spec) for spec in signature.outputs}
    pixels = signature.inputs[0]
    recorded = [(item.min_batch, item.opt_batch, item.max_batch) for item in engine.profiles]
    batches: list[tuple[int, ...]] = [*recorded]
    if found == expected and isinstance(pixels.shape[0], str):  # a fixed batch has no profile
        batches = [
            tuple(int(shape[0]) for shape in trt_engine.get_tensor_profile_shape(pixels.name, index))
            for index in range(trt_engine.num_optimization_profiles)
        ]
    if found != expected or batches != recorded:
        raise BundleError(
            f"{engine.file} has the tensors {found} and the profiles {batches}, the manifest says {expected} and "
            f"{recorded} (-1: any size); build it again with `pargo-export trt`"
        )


def _describe_tensor(trt_engine: ICudaEngine, name: str) -> str:
    mode, dtype = trt_engine.get_tensor_mode(name).name, trt_engine.get_tensor_dtype(name).name
    where = trt_engine.get_tensor_location(name).name
    sizes = [int(size) for size in sizes_of(trt_engine.get_tensor_shape(name))]
    return f"{mode} {_DTYPES.get(dtype, dtype)}{sizes}{'' if where == 'DEVICE' else f' on {where}'}"


def _describe(mode: str, spec: TensorSpec) -> str:
    sizes = [-1 if isinstance(size, str) else size for size in spec.shape]
    return f"{mode} {spec.dtype}{sizes}"
