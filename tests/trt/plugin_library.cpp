// A plugin library as TensorRT loads it: two creators, whose plugins take over the nodes but compute nothing.
//
// NVIDIA's headers are not needed: the classes below declare the same virtual functions in the same order, which is
// what a library and TensorRT agree upon. Interfaces: IPluginV3 and its "one" capabilities, version 1.0.

#include <cstddef>
#include <cstdint>

struct Info { char const* kind; int32_t major, minor; };
struct Dims { int32_t rank; int64_t sizes[8]; };
struct TensorDesc { Dims dims; int32_t type, format; float scale; };
struct DynamicTensorDesc { TensorDesc desc; Dims min, max, opt; };
struct DimsExprs { int32_t rank; void const* sizes[8]; };
struct Field { char const* name; void const* data; int32_t type, length; };
struct Fields { int32_t count; Field const* fields; };

struct Versioned {
    virtual int32_t language() const noexcept { return 0; }
    virtual Info info() const noexcept = 0;
    virtual ~Versioned() noexcept = default;
};

struct Plugin : Versioned {
    Info info() const noexcept override { return {"PLUGIN", 1, 0}; }
    virtual Versioned* capability(int32_t kind) noexcept = 0;
    virtual Plugin* clone() noexcept = 0;
};

struct Core : Versioned {
    Core(char const* given) : operation(given) {}
    Info info() const noexcept override { return {"PLUGIN_V3ONE_CORE", 1, 0}; }
    virtual char const* name() const noexcept { return operation; }
    virtual char const* version() const noexcept { return "1"; }
    virtual char const* space() const noexcept { return ""; }
    char const* operation;
};

struct Build : Versioned {
    Info info() const noexcept override { return {"PLUGIN_V3ONE_BUILD", 1, 0}; }
    virtual int32_t configure(DynamicTensorDesc const*, int32_t, DynamicTensorDesc const*, int32_t) noexcept { return 0; }
    virtual int32_t types(int32_t* out, int32_t, int32_t const* in, int32_t) const noexcept { out[0] = in[0]; return 0; }
    virtual int32_t shapes(DimsExprs const* in, int32_t, DimsExprs const*, int32_t, DimsExprs* out, int32_t, void*) noexcept {
        out[0] = {3, {in[1].sizes[0], in[0].sizes[1], in[0].sizes[2]}};  // batch of the key, tokens of the query
        return 0;
    }
    virtual bool takes(int32_t position, DynamicTensorDesc const* all, int32_t, int32_t) noexcept {
        return all[position].desc.format == 0 && all[position].desc.type == all[0].desc.type;
    }
    virtual int32_t outputs() const noexcept { return 1; }
    virtual size_t workspace(DynamicTensorDesc const*, int32_t, DynamicTensorDesc const*, int32_t) const noexcept { return 0; }
    virtual int32_t tactics(int32_t*, int32_t) noexcept { return 0; }
    virtual int32_t num_tactics() noexcept { return 0; }
    virtual char const* timing_cache_id() noexcept { return nullptr; }
    virtual int32_t format_limit() noexcept { return 100; }
    virtual char const* metadata() noexcept { return nullptr; }
};

struct Runtime : Versioned {
    Runtime(Plugin* given) : owner(given) {}
    Info info() const noexcept override { return {"PLUGIN_V3ONE_RUNTIME", 1, 0}; }
    virtual int32_t set_tactic(int32_t) noexcept { return 0; }
    virtual int32_t on_shape_change(TensorDesc const*, int32_t, TensorDesc const*, int32_t) noexcept { return 0; }
    virtual int32_t enqueue(TensorDesc const*, TensorDesc const*, void const* const*, void* const*, void*, void*) noexcept { return 1; }
    virtual Plugin* attach(void*) noexcept { return owner->clone(); }
    virtual Fields const* serialized() noexcept { return &none; }
    Plugin* owner;
    Fields none{0, nullptr};
};

struct Attention : Plugin {
    explicit Attention(char const* operation) : core(operation), runtime(this) {}
    Versioned* capability(int32_t kind) noexcept override {
        Versioned* const all[] = {&core, &build, &runtime};
        return all[kind];
    }
    Plugin* clone() noexcept override { return new Attention(core.operation); }
    Core core;
    Build build;
    Runtime runtime;
};

struct Creator : Versioned {
    explicit Creator(char const* given) : operation(given) {}
    Info info() const noexcept override { return {"PLUGIN CREATOR_V3ONE", 1, 0}; }
    virtual Plugin* create(char const*, Fields const*, int32_t) noexcept { return new Attention(operation); }
    virtual Fields const* announced() noexcept { return &none; }
    virtual char const* name() const noexcept { return operation; }
    virtual char const* version() const noexcept { return "1"; }
    virtual char const* space() const noexcept { return ""; }
    char const* operation;
    Fields none{0, nullptr};
};

extern "C" void setLoggerFinder(void*) {}

extern "C" Versioned* const* getCreators(int32_t& count) {
    static Creator cross(CROSS), self(SELF);
    static Versioned* const creators[] = {&cross, &self};
    count = 2;
    return creators;
}
