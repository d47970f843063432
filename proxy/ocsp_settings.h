/* Which of the settings of OCSP stapling are a chain's. */
#ifndef KEYLESS_PROXY_OCSP_SETTINGS_H
#define KEYLESS_PROXY_OCSP_SETTINGS_H

#include <stdbool.h>

#include "proxy/certificates.h"
#include "proxy/config.h"

/* Its site's; of a chain that is nobody's in particular those of the first site that one of its names is of,
 * else the general ones. Borrowed. */
const struct proxy_ocsp *ocsp_settings_of(const struct proxy_config *config,
                                          const struct certificate *certificate);
/* Whether anything comes from there. */
bool ocsp_settings_use(const struct proxy_config *config, enum proxy_ocsp_source source);

#endif
