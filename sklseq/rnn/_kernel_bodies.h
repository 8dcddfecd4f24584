// Everything that is compiled once per instruction set; see _instruction_sets.h.
#include "_lanes.h"
#include "_product.h"
#include "_cell_steps.h"
#include "_layer.h"
#include "_heads.h"
#include "_drawing.h"

#undef SKLSEQ_LANE_BYTES
#undef SKLSEQ_PANEL_VECTORS
#undef SKLSEQ_TARGET
#undef SKLSEQ_INLINE
#undef SKLSEQ_FOR_LANES
