#include "proxy/ocsp_settings.h"

#include <string.h>

static const struct proxy_site *site_of(const struct proxy_config *config,
                                        const struct certificate *certificate)
{
    const struct proxy_site *site = certificate->site;
    const char *name = certificate->names;
    for (size_t i = 0; site == NULL && i < certificate->name_count; i++, name += strlen(name) + 1)
        site = proxy_config_site(config, bytes_of(name, strlen(name)));
    return site;
}

const struct proxy_ocsp *ocsp_settings_of(const struct proxy_config *config,
                                          const struct certificate *certificate)
{
    const struct proxy_site *site = site_of(config, certificate);
    return site != NULL ? &site->ocsp : &config->tls.ocsp;
}

bool ocsp_settings_use(const struct proxy_config *config, enum proxy_ocsp_source source)
{
    bool used = config->tls.ocsp.source == source;
    for (size_t i = 0; !used && i < config->site_count; i++)
        used = config->sites[i].ocsp.source == source;
    return used;
}
